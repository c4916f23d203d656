"""The database: whether it is there, is what the programs expect, and keeps what it acks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from provgate_broker.topology.policy import RangePolicy
from provgate_operations.doctor.findings import Finding, broken, ok, skipped, warning
from provgate_storage.database.local import LocalStorage, StorageFacts
from provgate_storage.errors import SchemaMismatchError, StorageError

_CLOCK_WARNING_S: Final = 2.0
_CLOCK_BROKEN_S: Final = 60.0

DEPENDENT_CHECKS: Final = ("schema", "range counts", "durability", "clock")
"""The checks that need the database's answer."""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a database answered.

    Attributes:
        storage: what it tells of itself.
        schema_fault: what is wrong with the schema; None where nothing is.
        range_counts: those that it records; None where it records none.
        clock_offset_s: by how much its clock is ahead of this machine's, in seconds; what the round trip may explain
            is left out.
    """

    storage: StorageFacts
    schema_fault: str | None
    range_counts: Mapping[str, int] | None
    clock_offset_s: float


def ask_database(storage: LocalStorage) -> DatabaseFacts:
    """Opens a storage, asks it, and closes it.

    Raises:
        StorageError: it cannot be reached, or refuses.
    """
    with storage:
        asked_at = datetime.now(UTC)
        facts = storage.inspect()
        answered_at = datetime.now(UTC)
        schema_fault = _fault(lambda: storage.check(None))
        range_counts = None if schema_fault else storage.recorded_range_counts()
    return DatabaseFacts(facts, schema_fault, range_counts, clock_offset_s(asked_at, facts.now, answered_at))


def clock_offset_s(asked_at: datetime, told: datetime, answered_at: datetime) -> float:
    """Returns by how much a clock that was read between two moments is ahead of the one that told these."""
    if told > answered_at:
        return (told - answered_at).total_seconds()
    return min(0.0, (told - asked_at).total_seconds())


def unreachable(where: str, error: StorageError | TimeoutError) -> list[Finding]:
    """Returns the findings where a database did not answer."""
    reason = str(error) or "no answer in time"
    return [
        broken(
            "database",
            f"{where}.storage_config: {' '.join(reason.split())}",
            "workers store nothing, and reads fail with UNAVAILABLE",
            "start the database, or correct storage_config and the rights of its user",
        ),
        *(skipped(check, f"the database of {where} does not answer") for check in DEPENDENT_CHECKS),
    ]


def database_findings(where: str, facts: DatabaseFacts, policy: RangePolicy | None) -> Iterator[Finding]:
    """Yields what follows from the answers.

    Args:
        where: the section that configures the database.
        facts: the answers.
        policy: the configured range counts; None where there are none.
    """
    yield ok("database", f"{facts.storage.server}, of {where}.storage_config")
    yield _schema(facts)
    yield _range_counts(facts, policy)
    yield from _durability(facts.storage)
    yield _clock(facts.clock_offset_s)


def _schema(facts: DatabaseFacts) -> Finding:
    if facts.schema_fault is None:
        return ok("schema", "it is the version of this program")
    return broken("schema", facts.schema_fault, "gateway and workers do not start", "provgate-workers setup")


def _range_counts(facts: DatabaseFacts, policy: RangePolicy | None) -> Finding:
    check = "range counts"
    if facts.range_counts is None or policy is None:
        return skipped(check, "the database records none, or none are configured")
    configured = {exchange.value: count for exchange, count in policy.counts.items()}
    differing = [
        f"{exchange}: {facts.range_counts.get(exchange, 'none')} recorded, {count} configured"
        for exchange, count in configured.items()
        if facts.range_counts.get(exchange) != count
    ]
    if not differing:
        return ok(check, "those that the database records are the configured ones")
    return broken(
        check,
        "; ".join(differing),
        "gateway and workers that disagree do not start; two writers of one row could meet",
        "set provenance.rabbitmq.ranges alike in every program, or run provgate-workers setup to change it",
    )


def _durability(facts: StorageFacts) -> Iterator[Finding]:
    for danger in facts.dangers:
        yield broken("durability", f"{danger.setting} is {danger.value}", danger.harm, danger.remedy)
    if not facts.dangers:
        yield ok("durability", "no setting that endangers what is acked")


def _clock(offset_s: float) -> Finding:
    if abs(offset_s) <= _CLOCK_WARNING_S:
        return ok("clock", "this machine's and the database's agree")
    what = f"the database's is {abs(offset_s):.1f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's"
    why = "certificates, tokens and logs of several machines are judged by their clocks"
    remedy = "timedatectl set-ntp true, on both machines"
    found = broken if abs(offset_s) > _CLOCK_BROKEN_S else warning
    return found("clock", what, why, remedy)


def _fault(check: Callable[[], None]) -> str | None:
    try:
        check()
    except SchemaMismatchError as error:
        return str(error)
    return None
