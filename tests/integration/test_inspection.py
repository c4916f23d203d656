"""What an inspection of a real broker finds."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pika
import pytest

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession, open_session
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE, declare_topology
from provgate_broker.topology.inspection import (
    PublishReport,
    PublishRight,
    TopologyReport,
    inspect_topology,
    probe_publishing,
)
from provgate_broker.topology.policy import Exchange, RangePolicy
from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.support.broker import alarm

T = TypeVar("T")

SETTINGS = RabbitMqSettings()
POLICY = RangePolicy.of({"content": 4, "directory": 2, "location": 1, "origin": 1, "revision": 2})
FEWER = RangePolicy.of({"content": 2, "directory": 2, "location": 1, "origin": 1, "revision": 2})
MORE = RangePolicy.of({"content": 8, "directory": 2, "location": 1, "origin": 1, "revision": 2})


def on_session(url: str, work: Callable[[AmqpSession], Awaitable[T]]) -> T:
    async def run() -> T:
        session = await open_session(AmqpParameters(url, 10), "a test")
        try:
            return await work(session)
        finally:
            await session.close()

    return asyncio.run(run())


def inspected(url: str, policy: RangePolicy = POLICY, settings: RabbitMqSettings = SETTINGS) -> TopologyReport:
    return on_session(url, lambda session: inspect_topology(session, policy, settings))


def probed(url: str) -> PublishReport:
    return on_session(url, probe_publishing)


@pytest.fixture
def declared_url(rabbitmq_node: RabbitMqNode) -> Iterator[str]:
    """A virtual host of the private node, with the topology of `POLICY`."""
    name = f"inspection-{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    url = rabbitmq_node.url(name)
    on_session(url, lambda session: declare_topology(session, POLICY, SETTINGS))
    yield url
    rabbitmq_node.delete_vhost(name)


@pytest.fixture
def amqp_channel(declared_url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(declared_url))
    yield connection.channel()
    connection.close()


def user_url(node: RabbitMqNode, url: str, configure: str, write: str, read: str) -> str:
    """Returns the URL of a new user with some rights."""
    name, vhost = f"user_{secrets.token_hex(4)}", urlsplit(url).path[1:]
    node.ctl("add_user", name, "secret")
    node.ctl("set_permissions", "-p", vhost, name, configure, write, read)
    return f"amqp://{name}:secret@127.0.0.1:{node.port}/{vhost}"


def test_what_set_up_made_is_as_it_should_be(declared_url: str) -> None:
    report = inspected(declared_url)
    assert (report.missing, report.different, dict(report.exchanges), dict(report.range_counts)) == ([], {}, {}, {})
    assert report.compared
    assert len(report.work) == len(report.unconsumed) == 24
    assert set(report.dead_letter_queues) == {DEAD_LETTER_QUEUE, QUARANTINE_QUEUE}


def test_what_waits_and_who_consumes(declared_url: str, amqp_channel: Any) -> None:
    amqp_channel.confirm_delivery()
    amqp_channel.basic_publish("", DEAD_LETTER_QUEUE, b"letter")
    for _ in range(3):
        amqp_channel.basic_publish("content", "content_add.unknown.2", b"package")
    amqp_channel.basic_consume("origin_add.unknown.0", lambda *_: None)
    report = inspected(declared_url)
    depths = {queue.name: queue.state.message_count for queue in report.work.values() if queue.state}
    assert {name: depth for name, depth in depths.items() if depth} == {"content_add.unknown.2": 3}
    letters = report.dead_letter_queues[DEAD_LETTER_QUEUE].state
    assert letters is not None
    assert letters.message_count == 1
    assert len(report.unconsumed) == 23
    assert "origin_add.unknown.0" not in report.unconsumed


def test_what_is_missing_is_told_and_not_made(declared_url: str, amqp_channel: Any) -> None:
    amqp_channel.queue_delete("revision_add.unknown.1")
    amqp_channel.queue_delete(QUARANTINE_QUEUE)
    amqp_channel.exchange_delete("origin")
    for _ in range(2):
        report = inspected(declared_url)
        assert report.missing == ["revision_add.unknown.1", QUARANTINE_QUEUE]
        assert dict(report.exchanges) == {Exchange.ORIGIN: "missing"}


def test_what_has_other_arguments_is_told(declared_url: str, amqp_channel: Any) -> None:
    amqp_channel.queue_delete("content_add.unknown.3")
    amqp_channel.queue_declare("content_add.unknown.3", durable=True, arguments={"x-queue-type": "classic"})
    report = inspected(declared_url)
    assert list(report.different) == ["content_add.unknown.3"]
    assert "inequivalent arg" in report.different["content_add.unknown.3"]
    assert report.missing == []


def test_more_ranges_and_fewer_than_configured(declared_url: str) -> None:
    assert dict(inspected(declared_url, FEWER).range_counts) == {Exchange.CONTENT: None}
    report = inspected(declared_url, MORE)
    assert dict(report.range_counts) == {Exchange.CONTENT: 4}
    assert len(report.missing) == 12


def test_a_user_who_may_not_configure_compares_no_arguments(
    declared_url: str, rabbitmq_node: RabbitMqNode, amqp_channel: Any
) -> None:
    amqp_channel.queue_delete("content_add.unknown.3")
    report = inspected(user_url(rabbitmq_node, declared_url, "^$", ".*", ".*"))
    assert not report.compared
    assert report.missing == ["content_add.unknown.3"]
    assert report.different == {}


def test_of_another_deployment_nothing_is_compared(declared_url: str) -> None:
    report = inspected(declared_url, settings=RabbitMqSettings(topology="existing"))
    assert not report.compared
    assert report.missing == []
    assert not report.dead_letter_queues


def test_a_probe_goes_nowhere(declared_url: str) -> None:
    report = probed(declared_url)
    assert dict(report.rights) == dict.fromkeys(Exchange, PublishRight.CONFIRMED)
    assert not report.blocked
    assert all(queue.state and not queue.state.message_count for queue in inspected(declared_url).work.values())


def test_a_probe_of_what_is_missing_and_of_what_is_not_allowed(
    declared_url: str, rabbitmq_node: RabbitMqNode, amqp_channel: Any
) -> None:
    amqp_channel.exchange_delete("origin")
    report = probed(user_url(rabbitmq_node, declared_url, "^$", "^(content|directory|origin|revision)$", ".*"))
    refused, missing = {Exchange.LOCATION}, {Exchange.ORIGIN}
    assert {exchange for exchange, right in report.rights.items() if right is PublishRight.REFUSED} == refused
    assert {exchange for exchange, right in report.rights.items() if right is PublishRight.NO_EXCHANGE} == missing


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_a_probe_during_an_alarm(declared_url: str, rabbitmq_node: RabbitMqNode, resource: str) -> None:
    with alarm(rabbitmq_node, resource):
        assert probed(declared_url).blocked
        assert inspected(declared_url).missing == []
    assert not probed(declared_url).blocked


def test_a_session_knows_which_of_a_hosts_addresses_it_reached(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def addresses(_host: str, *arguments: Any, **others: Any) -> list[Any]:
        # Nothing listens on the first.
        return [found for host in ("127.77.77.77", "127.0.0.1") for found in resolve(host, *arguments, **others)]

    async def peer(session: AmqpSession) -> str:
        return session.peer

    url = urlsplit(amqp_url)
    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    assert on_session(amqp_url.replace("127.0.0.1", "broker.example"), peer) == f"127.0.0.1:{url.port}"
