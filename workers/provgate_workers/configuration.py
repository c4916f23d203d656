"""The settings of a worker program, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from provgate_broker.session import AmqpParameters
from provgate_broker.settings import SECTION, RabbitMqSettings
from provgate_broker.topology import RangePolicy
from provgate_config import ConfigurationError
from provgate_storage.local import LocalStorage
from provgate_storage.registry import UnknownStorageError, get_provenance_storage
from provgate_workers.assignment import Assignment, deal, preferred_ranges

PATH: Final = f"provenance.{SECTION}"

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
        """How many waiting entries are stored in one call."""
        return max(self.settings.batch_size, _BATCH_SIZE_MIN)

    @property
    def prefetch_count(self) -> int:
        """How many packages of each queue are in hand at most."""
        return max(self.settings.prefetch_count, _PREFETCH_COUNT_MIN)

    @property
    def process_in_hand_bytes(self) -> int:
        """How many bytes of packages each process holds at most."""
        return self.settings.max_in_hand_bytes // len(self.assignments)

    def storage(self) -> LocalStorage:
        """Returns the storage that the workers write to, not yet open.

        Raises:
            ConfigurationError: the settings name none that can be written to.
        """
        return local_storage(self.settings.storage_config, self.settings.storage_threads)


def configuration_of(settings: RabbitMqSettings) -> WorkerConfiguration:
    """Returns checked settings.

    Raises:
        ConfigurationError: they cannot be worked with.
    """
    if settings.topology != "own":
        raise ConfigurationError(
            f"{PATH}.topology: `existing` is for a gateway in front of another deployment's workers; these workers"
            " need `own`"
        )
    try:
        parameters = AmqpParameters(settings.url, settings.heartbeat_s)
    except ValueError as error:
        raise ConfigurationError(f"{PATH}.url: {error}") from error
    try:
        policy = RangePolicy.of(settings.ranges)
    except ValueError as error:
        raise ConfigurationError(f"{PATH}.ranges.{error}") from error
    preferred = preferred_ranges(settings.preferred, policy)
    assignments = tuple(deal(policy, preferred, settings.processes))
    configuration = WorkerConfiguration(settings, parameters, policy, assignments)
    configuration.storage()
    return configuration


def local_storage(storage_config: Mapping[str, Any], thread_count: int) -> LocalStorage:
    """Returns the local storage of a configuration, not yet open.

    Args:
        storage_config: `cls` and what that class takes.
        thread_count: how many threads will write at once.

    Raises:
        ConfigurationError: there is no such storage, it is not a local one, or it does not take these settings.
    """
    values = dict(storage_config)
    name = values.pop("cls", None)
    path = f"{PATH}.storage_config"
    if not isinstance(name, str):
        raise ConfigurationError(f"{path}.cls: missing; it names the storage, for example `postgresql`")
    if name in ("postgresql", "local"):
        values.setdefault("write_connections", thread_count)
        values.setdefault("application_name", "provgate-workers")
    try:
        storage = get_provenance_storage(name, **values)
    except UnknownStorageError as error:
        raise ConfigurationError(f"{path}.cls: {error}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{PATH}.{error.message}") from error
    if not isinstance(storage, LocalStorage):
        raise ConfigurationError(f"{path}.cls: {name!r} is no database; the workers write to one")
    return storage
