"""Storing a batch: what a storage thread does, from bodies to a commit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeAlias

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
class Stored:
    """A package is committed.

    Attributes:
        row_count: its rows, duplicates included.
    """

    row_count: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A package will never be stored."""

    reason: DeadLetterReason
    message: str


def refusal_of_size(body: bytes, package_max_bytes: int) -> Refused | None:
    """Returns the refusal of a body that is too large to be decoded; None for any other."""
    if len(body) <= package_max_bytes:
        return None
    text = f"the body has {len(body)} bytes: more than package_max_bytes, {package_max_bytes}"
    return Refused(DeadLetterReason.MALFORMED, text)


Outcome: TypeAlias = Stored | Refused | None
"""What became of a package; None where it is to be tried again."""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What became of a batch.

    Attributes:
        outcomes: of each package, in their order.
        trouble: why some are to be tried again; None where none is.
        stray_row_counts: the rows that belong to another range than they came for, by the range they came for.
    """

    outcomes: list[Outcome]
    trouble: RetryableStorageError | None
    stray_row_counts: Mapping[int, int]


RangedBody: TypeAlias = tuple[int, bytes]
"""The range that a package came for, and its body."""


def store_batch(
    storage: RowStorage, policy: RangePolicy, operation: Operation, bodies: Sequence[RangedBody]
) -> BatchReport:
    """Stores packages of one operation, in one storage call where the storage takes it.

    A package that cannot be stored is found out and left out; the others are stored. Thread-safe as the storage is.

    Raises:
        SchemaMismatchError: the database is not what the program expects. Packages may have been stored.
    """
    batch = _Batch(storage, operation, len(bodies))
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


_Package: TypeAlias = tuple[int, list[Row]]
"""A decoded package, with its place in the batch."""


class _Batch:
    def __init__(self, storage: RowStorage, operation: Operation, package_count: int) -> None:
        self._storage = storage
        self._operation = operation
        self.outcomes: list[Outcome] = [None] * package_count

    def decode(self, bodies: Sequence[bytes]) -> list[_Package]:
        """Returns the packages that can be decoded; the outcome of the others is set."""
        packages: list[_Package] = []
        for index, body in enumerate(bodies):
            try:
                packages.append((index, decode_package(body, self._operation)))
            except MalformedPackageError as error:
                self.outcomes[index] = Refused(DeadLetterReason.MALFORMED, str(error))
        return packages

    def store(self, packages: Sequence[_Package]) -> None:
        """Stores packages and sets their outcomes, in one call or in as few as it takes to find what is refused.

        Raises:
            RetryableStorageError: the storage is in trouble; the packages that have no outcome are not stored.
            SchemaMismatchError: as `store_batch`.
        """
        if not packages:
            return
        try:
            self._add(packages)
        except (RetryableStorageError, SchemaMismatchError):
            raise
        except (DataRefusedError, InvalidValueError) as error:
            if not self._halve(packages):
                self.outcomes[packages[0][0]] = Refused(DeadLetterReason.REFUSED, str(error))
        except Exception:  # noqa: BLE001  # what a storage raises of its own: neither lose a row nor spin
            if not self._halve(packages):
                self._insist(packages)
        else:
            self._note_stored(packages)

    def _halve(self, packages: Sequence[_Package]) -> bool:
        middle = len(packages) // 2
        if not middle:
            return False
        self.store(packages[:middle])
        self.store(packages[middle:])
        return True

    def _insist(self, packages: Sequence[_Package]) -> None:
        """Tries a package that fails in a way that is not known some more times, and refuses it then."""
        retrying = Retrying(
            retry=retry_if_not_exception_type((RetryableStorageError, SchemaMismatchError)),
            stop=stop_after_attempt(_UNEXPECTED_TRIES),
            wait=wait_random_exponential(multiplier=0.1, max=_UNEXPECTED_WAIT_MAX_S),
            reraise=True,
        )
        try:
            retrying(self._add, packages)
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
        else:
            self._note_stored(packages)

    def _note_stored(self, packages: Sequence[_Package]) -> None:
        for index, rows in packages:
            self.outcomes[index] = Stored(len(rows))

    def _add(self, packages: Sequence[_Package]) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type(StorageConflictError),
            stop=_was_tried_enough,
            wait=wait_random(0, _CONFLICT_WAIT_MAX_S),
            before_sleep=self._log_conflict,
            reraise=True,
        )
        retrying(self._add_once, packages)

    def _add_once(self, packages: Sequence[_Package]) -> None:
        rows = list(chain.from_iterable(rows for _, rows in packages))
        if not self._storage.write_rows(storage_name_of(self._operation), rows):
            raise StorageUnavailableError("the storage asks to be called again")

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


def _was_tried_enough(state: RetryCallState) -> bool:
    # Each try waits for a lock as long as the storage lets it, and holds a storage thread meanwhile.
    error = state.outcome.exception() if state.outcome else None
    return state.attempt_number >= (2 if isinstance(error, StorageLockedError) else _CONFLICT_TRIES)


def storage_name_of(operation: Operation) -> str:
    """Returns the name under which a storage takes the rows of an operation."""
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
