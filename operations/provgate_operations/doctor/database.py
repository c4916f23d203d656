"""Checks of a database: reachable, right schema and range counts, durable settings, right clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from provgate_broker.topology.policy import RangePolicy
from provgate_operations.doctor.findings import Finding, broken, ok, skipped, warning
from provgate_storage.database.local import LocalStorage, StorageFacts
from provgate_storage.errors import SchemaMismatchError, StorageError

_CLOCK_WARNING_S: Final = 2.0
_CLOCK_BROKEN_S: Final = 60.0

_DEPENDENT_CHECKS: Final = ("schema", "range counts", "durability", "clock")


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The answers of a database.

    Attributes:
        storage: its server, settings and time.
        schema_fault: what is wrong with the schema; None if nothing is.
        range_counts: the range counts that it records; None if it records none.
        clock_offset_s: the seconds by which its clock is ahead of this machine's, beyond what the round trip explains.
    """

    storage: StorageFacts
    schema_fault: str | None
    range_counts: Mapping[str, int] | None
    clock_offset_s: float


async def check_database(
    where: str, storage: LocalStorage, policy: RangePolicy | None, timeout_s: float
) -> list[Finding]:
    """Opens a storage, checks it, and closes it.

    Args:
        where: the section that configures the database.
        storage: the database, not yet open.
        policy: the configured range counts; None if there are none.
        timeout_s: the time limit.
    """
    answer: Future[DatabaseFacts] = Future()

    def ask() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(_ask(storage))
        except Exception as error:  # noqa: BLE001  # it is raised where the answer is awaited
            answer.set_exception(error)

    # An executor's thread would delay the end of the program until the database answers.
    threading.Thread(target=ask, daemon=True).start()
    try:
        facts = await asyncio.wait_for(asyncio.wrap_future(answer), timeout_s)
    except (StorageError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or "no answer in time"
        return [
            broken(
                "database",
                f"{where}.storage_config: {reason}",
                "workers store nothing, and reads fail with UNAVAILABLE",
                "start the database, or correct storage_config and the rights of its user",
            ),
            *(skipped(check, f"the database of {where} does not answer") for check in _DEPENDENT_CHECKS),
        ]
    return list(database_findings(where, facts, policy))


def no_database() -> list[Finding]:
    """Returns the findings if no database is configured."""
    what = "no database of a gateway or worker program is configured here"
    return [skipped(check, what) for check in ("database", *_DEPENDENT_CHECKS)]


def _ask(storage: LocalStorage) -> DatabaseFacts:
    with storage:
        asked_at = datetime.now(UTC)
        facts = storage.inspect()
        answered_at = datetime.now(UTC)
        schema_fault = None
        try:
            storage.check(None)
        except SchemaMismatchError as error:
            schema_fault = str(error)
        range_counts = None if schema_fault else storage.recorded_range_counts()
    return DatabaseFacts(facts, schema_fault, range_counts, clock_offset_s(asked_at, facts.now, answered_at))


def clock_offset_s(asked_at: datetime, database_time: datetime, answered_at: datetime) -> float:
    """Returns the seconds by which the database's clock is ahead of this machine's two times of question and answer."""
    if database_time > answered_at:
        return (database_time - answered_at).total_seconds()
    return min(0.0, (database_time - asked_at).total_seconds())


def database_findings(where: str, facts: DatabaseFacts, policy: RangePolicy | None) -> Iterator[Finding]:
    """Yields the findings that follow from the answers; arguments as for `check_database`."""
    yield ok("database", f"{facts.storage.server}, of {where}.storage_config")
    if facts.schema_fault is None:
        yield ok("schema", "it is the version of this program")
    else:
        yield broken("schema", facts.schema_fault, "gateway and workers do not start", "provgate-workers setup")
    yield _range_counts(facts.range_counts, policy)
    for danger in facts.storage.dangers:
        yield broken("durability", f"{danger.setting} is {danger.value}", danger.harm, danger.remedy)
    if not facts.storage.dangers:
        yield ok("durability", "no setting endangers acked data")
    yield _clock(facts.clock_offset_s)


def _range_counts(recorded: Mapping[str, int] | None, policy: RangePolicy | None) -> Finding:
    check = "range counts"
    if recorded is None or policy is None:
        return skipped(check, "the database records none, or none are configured")
    differing = [
        f"{exchange.value}: {recorded.get(exchange.value, 'none')} recorded, {count} configured"
        for exchange, count in policy.counts.items()
        if recorded.get(exchange.value) != count
    ]
    if not differing:
        return ok(check, "the database records the configured ones")
    return broken(
        check,
        "; ".join(differing),
        "gateway and workers that disagree do not start; two writers of one row could meet",
        "set provenance.rabbitmq.ranges alike in every program, or run provgate-workers setup to change it",
    )


def _clock(offset_s: float) -> Finding:
    if abs(offset_s) <= _CLOCK_WARNING_S:
        return ok("clock", "this machine's and the database's agree")
    found = broken if abs(offset_s) > _CLOCK_BROKEN_S else warning
    what = f"the database's is {abs(offset_s):.1f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's"
    why = "expiry of certificates and tokens, and the order of logs, depend on the clocks"
    return found("clock", what, why, "timedatectl set-ntp true, on both machines")
