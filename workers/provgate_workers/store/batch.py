"""Stores a batch of packages: from their bodies to a commit, on a storage thread."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol, TypeAlias

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_random,
    wait_random_exponential,
)

from provgate_broker.dead_letters.messages import DeadLetterReason
from provgate_broker.errors import MalformedPackageError
from provgate_broker.topology.policy import Exchange, Operation, RangePolicy, WriteMethod, exchange_of, location_id
from provgate_broker.wire.package import decode_package
from provgate_storage.database.local import RowStorage
from provgate_storage.errors import (
    DataRefusedError,
    InvalidValueError,
    RetryableStorageError,
    SchemaMismatchError,
    StorageConflictError,
    StorageLockedError,
    StorageUnavailableError,
)
from provgate_storage.model import EntityType
from provgate_storage.rows.rows import LOCATION, Row
from provgate_workers.package import Refused, Stored

logger = logging.getLogger(__name__)

_NAMES: Final = {
    WriteMethod.CONTENT_ADD: EntityType.CONTENT,
    WriteMethod.DIRECTORY_ADD: EntityType.DIRECTORY,
    WriteMethod.REVISION_ADD: EntityType.REVISION,
    WriteMethod.ORIGIN_ADD: EntityType.ORIGIN,
    WriteMethod.LOCATION_ADD: LOCATION,
}

_CONFLICT_TRIES: Final = 8
_CONFLICT_WAIT_MAX_S: Final = 0.1
_UNEXPECTED_TRIES: Final = 3
_UNEXPECTED_WAIT_MAX_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What became of a batch.

    Attributes:
        outcomes: of each package, in their order; None for one that is to be tried again.
        trouble: why some are to be tried again; None if none is.
        stray_row_counts: the rows that belong to another range than they came for, by the range they came for.
    """

    outcomes: list[Stored | Refused | None]
    trouble: RetryableStorageError | None
    stray_row_counts: Mapping[int, int]


RangedBody: TypeAlias = tuple[int, bytes]
"""The range that a package came for, and its body."""


class BatchStorage(RowStorage, Protocol):
    """The storage that batches are written to."""

    def probe(self) -> None:
        """Makes one round trip to the database. Raises `StorageUnavailableError` if that fails."""


class StorageThreads:
    """The threads that make storage calls: none is made on an event loop. Belongs to one event loop.

    Args:
        storage: an open storage.
        policy: the ranges.
        thread_count: the most batches that are stored at once.
    """

    def __init__(self, storage: BatchStorage, policy: RangePolicy, thread_count: int) -> None:
        self._storage = storage
        self._policy = policy
        # One more for probes.
        self._threads = ThreadPoolExecutor(thread_count + 1, thread_name_prefix="storage")

    def store(self, operation: Operation, bodies: Sequence[RangedBody]) -> asyncio.Future[BatchReport]:
        """Starts `store_batch` on a thread."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, store_batch, self._storage, self._policy, operation, bodies)

    async def probe(self) -> None:
        """Probes the storage. Raises `StorageUnavailableError` as it does."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._storage.probe)


def store_batch(
    storage: RowStorage, policy: RangePolicy, operation: Operation, bodies: Sequence[RangedBody]
) -> BatchReport:
    """Stores packages of one operation, in one storage call if the storage accepts it.

    A package that cannot be stored is searched for and left out; the others are stored. Thread-safe if the storage is.

    Raises:
        SchemaMismatchError: the database is not what the program expects. Packages may have been stored.
    """
    batch = _BatchWrite(storage, operation, len(bodies))
    packages = batch.decode([body for _, body in bodies])
    trouble: RetryableStorageError | None = None
    try:
        batch.store(packages)
    except RetryableStorageError as error:
        trouble = error
    stray_row_counts: Counter[int] = Counter()
    for index, rows in packages:
        range_number, _ = bodies[index]
        stray_row_counts[range_number] += _stray_row_count(policy, operation, range_number, rows)
    return BatchReport(batch.outcomes, trouble, +stray_row_counts)


_DecodedPackage: TypeAlias = tuple[int, list[Row]]
"""A decoded package, with its place in the batch."""


class _BatchWrite:
    def __init__(self, storage: RowStorage, operation: Operation, package_count: int) -> None:
        self._storage = storage
        self._operation = operation
        self.outcomes: list[Stored | Refused | None] = [None] * package_count

    def decode(self, bodies: Sequence[bytes]) -> list[_DecodedPackage]:
        """Returns the packages that can be decoded, and refuses the others."""
        packages: list[_DecodedPackage] = []
        for index, body in enumerate(bodies):
            try:
                packages.append((index, decode_package(body, self._operation)))
            except MalformedPackageError as error:
                self.outcomes[index] = Refused(DeadLetterReason.MALFORMED, str(error))
        return packages

    def store(self, packages: Sequence[_DecodedPackage]) -> None:
        """Stores packages and sets their outcomes: in one call, or in halves until the refused ones are alone.

        Raises:
            RetryableStorageError: the storage is in trouble; the packages without an outcome are not stored.
            SchemaMismatchError: as `store_batch`.
        """
        if not packages:
            return
        try:
            self._write(packages)
        except (RetryableStorageError, SchemaMismatchError):
            raise
        except Exception as error:  # noqa: BLE001  # anything a storage raises: neither lose a row nor spin
            middle = len(packages) // 2
            if middle:
                self.store(packages[:middle])
                self.store(packages[middle:])
            elif isinstance(error, DataRefusedError | InvalidValueError):
                self.outcomes[packages[0][0]] = Refused(DeadLetterReason.REFUSED, str(error))
            else:
                self._insist(packages)

    def _insist(self, packages: Sequence[_DecodedPackage]) -> None:
        """Tries a package that fails with an unknown error some more times, then refuses it."""
        retrying = Retrying(
            retry=retry_if_not_exception_type((RetryableStorageError, SchemaMismatchError)),
            stop=stop_after_attempt(_UNEXPECTED_TRIES),
            wait=wait_random_exponential(multiplier=0.1, max=_UNEXPECTED_WAIT_MAX_S),
            reraise=True,
        )
        try:
            retrying(self._write, packages)
        except (RetryableStorageError, SchemaMismatchError):
            raise
        except Exception as error:
            logger.exception(
                "a package of %s cannot be stored, each time",
                self._operation,
                extra={"action": "package.fail", "operation": str(self._operation)},
            )
            text = f"storing it fails with {type(error).__name__}, each time; the workers' log says more"
            self.outcomes[packages[0][0]] = Refused(DeadLetterReason.UNEXPECTED, text)

    def _write(self, packages: Sequence[_DecodedPackage]) -> None:
        """Writes the rows of packages in one storage call, repeated after a conflict, and sets their outcomes."""
        rows = list(chain.from_iterable(rows for _, rows in packages))
        retrying = Retrying(
            retry=retry_if_exception_type(StorageConflictError),
            stop=_is_tried_enough,
            wait=wait_random(0, _CONFLICT_WAIT_MAX_S),
            before_sleep=self._log_conflict,
            reraise=True,
        )
        if not retrying(self._storage.write_rows, storage_name_of(self._operation), rows):
            raise StorageUnavailableError("the storage asks to be called again")
        for index, own_rows in packages:
            self.outcomes[index] = Stored(len(own_rows))

    def _log_conflict(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        fields = {"operation": str(self._operation), "error": type(error).__name__, "reason": str(error)}
        logger.info(
            "%s is tried again: %s: %s",
            self._operation,
            type(error).__name__,
            error,
            extra={"action": "storage.conflict", **fields},
        )


def _is_tried_enough(state: RetryCallState) -> bool:
    # Each try waits for a lock until the storage's limit, and holds a storage thread meanwhile.
    error = state.outcome.exception() if state.outcome else None
    return state.attempt_number >= (2 if isinstance(error, StorageLockedError) else _CONFLICT_TRIES)


def storage_name_of(operation: Operation) -> str:
    """Returns the name by which a storage knows the rows of an operation."""
    return operation.relation or _NAMES[operation.method]


def _stray_row_count(policy: RangePolicy, operation: Operation, range_number: int, rows: list[Row]) -> int:
    exchange = exchange_of(operation)
    if policy.counts[exchange] == 1:
        return 0
    ranges = policy.ranges_by_first_byte[exchange]
    if exchange is Exchange.LOCATION:
        return sum(ranges[location_id(path)[0]] != range_number for (path,) in rows)
    if {ranges[first_byte] for first_byte in {row[0][0] for row in rows}} <= {range_number}:
        return 0
    return sum(ranges[row[0][0]] != range_number for row in rows)
