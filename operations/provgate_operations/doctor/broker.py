"""The broker: whether it is there, takes packages, and has the queues that it should have."""

from __future__ import annotations

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

# The oldest that is tested, and that has what quorum queues are asked for.
_VERSION_MIN: Final = (3, 10)

DEPENDENT_CHECKS: Final = ("permissions", "alarms", "topology", "consumers", "range counts", "dead letters")
"""The checks that need the broker's answer."""


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What a broker answered.

    Attributes:
        version: of the broker.
        topology: the exchanges and queues.
        publishing: what became of the publish probe; None where none was made.
        reply_queue: whether a gateway may have a queue for replies; None where that was not asked.
    """

    version: tuple[int, ...]
    topology: TopologyReport
    publishing: PublishReport | None
    reply_queue: bool | None


async def ask_broker(broker: Broker) -> BrokerFacts:
    """Returns what the broker answers. Behind another deployment's broker nothing is published or declared.

    Raises:
        ConnectionLostError: it cannot be reached, refuses, or the connection broke.
    """
    session = await open_session(broker.parameters, _NAME)
    try:
        topology = await inspect_topology(session, broker.policy, broker.settings)
        reply_queue = None if broker.existing else await may_own_reply_queue(session)
        version = session.broker_version
    finally:
        await session.close()
    publishing = None if broker.existing else await _probe(broker)
    return BrokerFacts(version, topology, publishing, reply_queue)


async def _probe(broker: Broker) -> PublishReport:
    session = await open_session(broker.parameters, f"{_NAME} probe")
    try:
        return await probe_publishing(session)
    finally:
        await session.close()


def unreachable(broker: Broker, error: ConnectionLostError | TimeoutError) -> list[Finding]:
    """Returns the findings where the broker did not answer, or refused the connection."""
    reason = str(error) or "no answer in time"
    if isinstance(error, ConnectionLostError) and error.reply_code is not None:
        return [
            broken(
                "broker",
                f"{broker.parameters.address} answered {error.reply_code}: {reason}",
                "writes wait, and end at their deadlines",
                "correct user, password and virtual host of provenance.rabbitmq.url: on the broker's machine"
                " `rabbitmqctl authenticate_user` and `rabbitmqctl list_permissions -p VIRTUAL_HOST`",
            ),
            *(skipped(check, "the broker refused the connection") for check in DEPENDENT_CHECKS),
        ]
    return [
        broken(
            "broker",
            f"{broker.parameters.address}: {reason}",
            "writes wait, and end at their deadlines",
            "start RabbitMQ, or correct provenance.rabbitmq.url: `rabbitmqctl status` on its machine",
        ),
        *(skipped(check, "the broker does not answer") for check in DEPENDENT_CHECKS),
    ]


def broker_findings(broker: Broker, facts: BrokerFacts) -> Iterator[Finding]:
    """Yields what follows from the answers."""
    version = ".".join(map(str, facts.version))
    yield ok("broker", f"RabbitMQ {version} at {broker.parameters.address}")
    if facts.version < _VERSION_MIN:
        yield warning("versions", f"RabbitMQ {version}", "3.10 is the oldest that is tested", "upgrade RabbitMQ")
    yield from _permissions(facts, broker)
    yield from _alarms(facts)
    yield from _topology(facts.topology, broker)
    yield from _consumers(facts.topology, broker)
    yield from _range_counts(facts.topology, broker.policy)
    yield from _aside(facts.topology)


def _permissions(facts: BrokerFacts, broker: Broker) -> Iterator[Finding]:
    check = "permissions"
    if facts.publishing is None:
        yield skipped(check, "nothing is published to another deployment's broker")
        return
    rights = f"rabbitmqctl set_permissions -p {broker.parameters.virtual_host} USER CONFIGURE WRITE READ"
    refused = [exchange for exchange, right in facts.publishing.rights.items() if right is PublishRight.REFUSED]
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
        configure = (
            "configure what set-up declares" if facts.topology.compared else "not configure, as a gateway's user"
        )
        yield ok(check, f"the user may publish, have a reply queue, and {configure}")


def _alarms(facts: BrokerFacts) -> Iterator[Finding]:
    if facts.publishing is None:
        yield skipped("alarms", "nothing is published to another deployment's broker")
    elif facts.publishing.blocked:
        yield broken(
            "alarms",
            "the broker blocks publishers: it is short of memory or of disk",
            "writes wait, and end with RESOURCE_EXHAUSTED at their deadlines",
            "rabbitmq-diagnostics alarms; then have the workers drain the queues, or give it more of what is short",
        )
    else:
        yield ok("alarms", "the broker takes what is published")


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
        yield ok(check, f"5 exchanges and {counted(len(report.work) + len(report.aside), 'queue')} are {compared}")


def _consumers(report: TopologyReport, broker: Broker) -> Iterator[Finding]:
    if not report.unconsumed:
        yield ok("consumers", "every work queue is consumed")
        return
    of_waiting = sum(queue.state.message_count for queue in report.work.values() if queue.state)
    start = "start the other deployment's workers" if broker.existing else "provgate-workers run"
    yield broken(
        "consumers",
        f"{len(report.unconsumed)} of {len(report.work)} work queues have no consumer: {some_of(report.unconsumed)};"
        f" packages that wait in all queues: {of_waiting}",
        "packages of these ranges wait, and their writes are not acked",
        start,
    )


def _range_counts(report: TopologyReport, policy: RangePolicy) -> Iterator[Finding]:
    for exchange, shown in report.range_counts.items():
        count = policy.counts[exchange]
        yield broken(
            "range counts",
            f"exchange {exchange}: the broker has queues of {shown or f'more than {count}'} ranges, {count} configured",
            "packages go to queues that nobody consumes, or two writers of one row meet",
            f"set provenance.rabbitmq.ranges.{exchange} alike in every program, or run {_SETUP} to change it",
        )
    if not report.range_counts:
        yield ok("range counts", "those of the broker's queues are the configured ones")


def _aside(report: TopologyReport) -> Iterator[Finding]:
    if not report.aside:
        yield skipped("dead letters", "another deployment keeps its own")
        return
    counts = {name: found.state.message_count if found.state else 0 for name, found in report.aside.items()}
    if letters := counts[DEAD_LETTER_QUEUE]:
        yield warning(
            "dead letters",
            f"{counted(letters, 'package')} could not be stored",
            "their rows are missing until they are replayed",
            "provgate-workers dlq list; then `dlq show`, `dlq replay` or `dlq drop`",
        )
    if suspects := counts[QUARANTINE_QUEUE]:
        yield warning(
            "dead letters",
            f"{counted(suspects, 'package')} in quarantine, which may have killed the programs that handled them",
            "workers take them one at a time; each is stored or becomes a dead letter",
            "provgate-workers run, and look into the log of the workers",
        )
    if not letters and not suspects:
        yield ok("dead letters", "there are none, and nothing is in quarantine")
