"""The settings of a worker program, checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.settings import PATH, RabbitMqSettings, amqp_parameters, range_policy
from provgate_broker.topology.policy import RangePolicy
from provgate_runtime import ConfigurationError
from provgate_storage.database.local import LocalStorage
from provgate_storage.registry import local_storage
from provgate_workers.program.assignment import Assignment, deal, preferred_ranges
from provgate_workers.store.batch_scheduler import STALLED_MAX_COUNT

# Floors: existing configurations have 100 in both, which suits one package a transaction.
_BATCH_SIZE_MIN: Final = 10_000
_PREFETCH_COUNT_MIN: Final = 10


@dataclass(frozen=True, slots=True)
class WorkerConfiguration:
    """Settings, and what follows from them.

    Attributes:
        settings: as given.
        parameters: where the broker is.
        policy: the ranges.
        assignments: the ranges of each process.
    """

    settings: RabbitMqSettings
    parameters: AmqpParameters
    policy: RangePolicy
    assignments: tuple[Assignment, ...]

    @property
    def batch_size(self) -> int:
        """The entries that are stored in one call at most, if that many wait."""
        return max(self.settings.batch_size, _BATCH_SIZE_MIN)

    @property
    def prefetch_count(self) -> int:
        """The most packages of each queue that are in hand."""
        return max(self.settings.prefetch_count, _PREFETCH_COUNT_MIN)

    @property
    def process_in_hand_bytes(self) -> int:
        """The most bytes of packages that each process holds."""
        return self.settings.max_in_hand_bytes // len(self.assignments)

    def storage(self) -> LocalStorage:
        """Returns the storage that the workers write to, not yet open.

        Raises:
            ConfigurationError: the settings name no storage that workers can write to.
        """
        return local_storage(
            self.settings.storage_config,
            PATH,
            write_connections=self.settings.storage_threads + STALLED_MAX_COUNT,
            application_name="provgate-workers",
        )


def configuration_of(settings: RabbitMqSettings) -> WorkerConfiguration:
    """Returns checked settings.

    Raises:
        ConfigurationError: workers cannot use them.
    """
    if settings.topology != "own":
        raise ConfigurationError(
            f"{PATH}.topology: `existing` is for a gateway in front of another deployment's workers; these workers"
            " need `own`"
        )
    parameters, policy = amqp_parameters(settings), range_policy(settings)
    preferred = preferred_ranges(settings.preferred, policy)
    assignments = tuple(deal(policy, preferred, settings.processes))
    configuration = WorkerConfiguration(settings, parameters, policy, assignments)
    configuration.storage()
    return configuration
