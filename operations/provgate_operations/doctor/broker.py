"""Checks of the broker: connection, permissions, alarms, exchanges, queues and their arguments, consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provgate_broker.amqp.connection import open_session
from provgate_broker.errors import ConnectionLostError
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_broker.topology.inspection import (
    PublishReport,
    PublishRight,
    TopologyReport,
    inspect_topology,
    may_own_reply_queue,
    probe_publishing,
)
from provgate_broker.topology.policy import Exchange, RangePolicy
from provgate_gateway.health.topology_monitor import some_of
from provgate_operations.doctor.deployment import Broker
from provgate_operations.doctor.findings import Finding, broken, ok, skipped, warning
from provgate_runtime.counted import counted

_SETUP: Final = "provgate-workers setup"
_NAME: Final = "provgate doctor"

# The oldest tested version with the arguments of our quorum queues.
_VERSION_MIN: Final = (3, 10)

_DEPENDENT_CHECKS: Final = ("permissions", "alarms", "topology", "consumers", "range counts", "dead letters")


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """The answers of a broker.

    Attributes:
        version: the version of RabbitMQ.
        topology: the exchanges and queues.
        publishing: the result of the publish probe; None if nothing was published.
        reply_queue: whether a gateway may declare a queue for replies; None if that was not asked.
    """

    version: tuple[int, ...]
    topology: TopologyReport
    publishing: PublishReport | None
    reply_queue: bool | None


async def check_broker(broker: Broker | None, timeout_s: float) -> list[Finding]:
    """Checks the broker, within a time limit; None skips all checks."""
    if broker is None:
        return [skipped(check, "no broker is configured here") for check in ("broker", *_DEPENDENT_CHECKS)]
    try:
        async with asyncio.timeout(timeout_s):
            facts = await _ask(broker)
    except (ConnectionLostError, TimeoutError) as error:
        return _unreachable(broker, error)
    return list(_findings(broker, facts))


async def _ask(broker: Broker) -> BrokerFacts:
    session = await open_session(broker.parameters, _NAME)
    try:
        topology = await inspect_topology(session, broker.policy, broker.settings)
        # Nothing is declared or published behind the broker of another deployment.
        reply_queue = None if broker.existing else await may_own_reply_queue(session)
        version = session.broker_version
    finally:
        await session.close()
    if broker.existing:
        return BrokerFacts(version, topology, None, reply_queue)
    session = await open_session(broker.parameters, f"{_NAME} probe")
    try:
        return BrokerFacts(version, topology, await probe_publishing(session), reply_queue)
    finally:
        await session.close()


def _unreachable(broker: Broker, error: ConnectionLostError | TimeoutError) -> list[Finding]:
    address, reason = broker.parameters.address, str(error) or "no answer in time"
    code = error.reply_code if isinstance(error, ConnectionLostError) else None
    if code is None:
        what, dependent = f"{address}: {reason}", "the broker does not answer"
        remedy = "start RabbitMQ, or correct provenance.rabbitmq.url: `rabbitmqctl status` on its machine"
    else:
        what, dependent = f"{address} answered {code}: {reason}", "the broker refused the connection"
        remedy = (
            "correct user, password and virtual host of provenance.rabbitmq.url: on the broker's machine"
            " `rabbitmqctl authenticate_user` and `rabbitmqctl list_permissions -p VIRTUAL_HOST`"
        )
    finding = broken("broker", what, "writes wait, and end at their deadlines", remedy)
    return [finding, *(skipped(check, dependent) for check in _DEPENDENT_CHECKS)]


def _findings(broker: Broker, facts: BrokerFacts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.version))
    yield ok("broker", f"RabbitMQ {version} at {broker.parameters.address}")
    if facts.version < _VERSION_MIN:
        yield warning("versions", f"RabbitMQ {version}", "3.10 is the oldest tested version", "upgrade RabbitMQ")
    if facts.publishing is None:
        for check in ("permissions", "alarms"):
            yield skipped(check, "nothing is published to another deployment's broker")
    else:
        yield from _permissions(facts, facts.publishing, broker)
        yield _alarms(facts.publishing)
    yield from _topology(facts.topology, broker)
    yield _consumers(facts.topology, broker)
    yield from _range_counts(facts.topology, broker.policy)
    yield from _dead_letters(facts.topology)


def _permissions(facts: BrokerFacts, publishing: PublishReport, broker: Broker) -> Iterator[Finding]:
    check = "permissions"
    rights = f"rabbitmqctl set_permissions -p {broker.parameters.virtual_host} USER CONFIGURE WRITE READ"
    refused = [exchange for exchange, right in publishing.rights.items() if right is PublishRight.REFUSED]
    if refused:
        yield broken(
            check,
            f"the user may not write to {', '.join(refused)}",
            "packages for these exchanges are never published",
            f"{rights}: WRITE of `^({'|'.join(Exchange)})$`",
        )
    if facts.reply_queue is False:
        yield broken(
            check,
            "the user may not have a queue of its own for replies",
            "a gateway with this user publishes nothing",
            f"{rights}: CONFIGURE, WRITE and READ of `^amq\\.gen.*$`",
        )
    if not refused and facts.reply_queue is not False:
        compared = facts.topology.compared
        configure = "configure what set-up declares" if compared else "not configure, as a gateway's user"
        yield ok(check, f"the user may publish, have a reply queue, and {configure}")


def _alarms(publishing: PublishReport) -> Finding:
    if not publishing.blocked:
        return ok("alarms", "the broker accepts publishes")
    return broken(
        "alarms",
        "the broker blocks publishers: it is short of memory or of disk",
        "writes wait, and end with RESOURCE_EXHAUSTED at their deadlines",
        "rabbitmq-diagnostics alarms; then let the workers drain the queues, or add memory or disk",
    )


def _topology(report: TopologyReport, broker: Broker) -> Iterator[Finding]:
    check = "topology"
    for exchange, fault in report.exchanges.items():
        yield broken(check, f"exchange {exchange}: {fault}", "its writes fail with FAILED_PRECONDITION", _SETUP)
    if report.missing:
        yield broken(
            check,
            f"{counted(len(report.missing), 'missing queue')}: {some_of(report.missing)}",
            "writes of these ranges fail with FAILED_PRECONDITION",
            _SETUP,
        )
    for name, difference in report.different.items():
        yield broken(
            check,
            f"queue {name}: {difference}",
            "it may lose packages, have two writers or fill the disk, and no worker program starts",
            f"rabbitmqctl delete_queue -p {broker.parameters.virtual_host} {name} --if-empty; {_SETUP}",
        )
    if not (report.exchanges or report.missing or report.different):
        compared = "as set-up declares them" if report.compared else "there; their arguments cannot be compared"
        yield ok(
            check,
            f"5 exchanges and {counted(len(report.work) + len(report.dead_letter_queues), 'queue')} are {compared}",
        )


def _consumers(report: TopologyReport, broker: Broker) -> Finding:
    if not report.unconsumed:
        return ok("consumers", "every work queue is consumed")
    waiting = sum(queue.state.message_count for queue in report.work.values() if queue.state)
    return broken(
        "consumers",
        f"{len(report.unconsumed)} of {len(report.work)} work queues have no consumer: {some_of(report.unconsumed)};"
        f" packages that wait in all queues: {waiting}",
        "packages of these ranges wait, and their writes are not acked",
        "start the other deployment's workers" if broker.existing else "provgate-workers run",
    )


def _range_counts(report: TopologyReport, policy: RangePolicy) -> Iterator[Finding]:
    for exchange, seen in report.range_counts.items():
        count = policy.counts[exchange]
        yield broken(
            "range counts",
            f"exchange {exchange}: the broker has queues of {seen or f'more than {count}'} ranges, {count} configured",
            "packages go to queues that nobody consumes, or two writers of one row meet",
            f"set provenance.rabbitmq.ranges.{exchange} alike in every program, or run {_SETUP} to change it",
        )
    if not report.range_counts:
        yield ok("range counts", "the broker has queues of the configured ones")


def _dead_letters(report: TopologyReport) -> Iterator[Finding]:
    check = "dead letters"
    if not report.dead_letter_queues:
        yield skipped(check, "another deployment keeps its own")
        return
    counts = {
        name: found.state.message_count if found.state else 0 for name, found in report.dead_letter_queues.items()
    }
    if letters := counts[DEAD_LETTER_QUEUE]:
        yield warning(
            check,
            f"{counted(letters, 'package')} could not be stored",
            "their rows are missing until they are replayed",
            "provgate-workers dlq list; then `dlq show`, `dlq replay` or `dlq drop`",
        )
    if quarantined := counts[QUARANTINE_QUEUE]:
        yield warning(
            check,
            f"{counted(quarantined, 'package')} in quarantine, which may have killed the programs that handled them",
            "workers take them one at a time; each is stored or becomes a dead letter",
            "provgate-workers run, and look into the log of the workers",
        )
    if not letters and not quarantined:
        yield ok(check, "there are none, and nothing is in quarantine")
