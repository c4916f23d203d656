"""What the broker says of the queues of a virtual host."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil

from provgate_stack.programs import WorkerProgram
from provgate_stack.rabbitmq import RabbitMqNode

Consumers = dict[str, list[tuple[bool, str]]]


def consumers(node: RabbitMqNode, url: str) -> Consumers:
    """Returns, of each queue, whether its consumers are active and what their status is."""
    found: Consumers = {}
    for consumer in listed(node, url, "consumers", "queue_name", "active", "activity_status"):
        found.setdefault(consumer["queue_name"], []).append((consumer["active"], consumer["activity_status"]))
    return found


def active_programs(node: RabbitMqNode, url: str, programs: list[WorkerProgram]) -> dict[str, WorkerProgram]:
    """Returns which of some worker programs consumes each queue that one of them consumes."""
    # In this order, so that what each consumer belongs to is there.
    active = {
        consumer["queue_name"]: _local(consumer["channel_pid"])
        for consumer in listed(node, url, "consumers", "queue_name", "channel_pid", "active")
        if consumer["active"]
    }
    connection_of = {
        _local(channel["pid"]): _local(channel["connection"])
        for channel in listed(node, None, "channels", "pid", "connection")
    }
    name_of = {
        _local(connection["pid"]): _connection_name(connection["client_properties"])
        for connection in listed(node, None, "connections", "pid", "client_properties")
    }
    program_of = {
        f"provgate-workers {child.pid} deliveries": program
        for program in programs
        if program.alive
        for child in psutil.Process(program.pid).children()
    }
    names = {queue: name_of.get(connection_of.get(channel, ""), "") for queue, channel in active.items()}
    return {queue: program_of[name] for queue, name in names.items() if name in program_of}


def _local(pid: str) -> str:
    # The first number of three is another one for every rabbitmqctl.
    return pid.partition(".")[2]


def _connection_name(client_properties: list[list[str]]) -> str:
    return next((value for key, _, value in client_properties if key == "connection_name"), "")


def unacked_count(node: RabbitMqNode, url: str) -> int:
    """Returns how many packages of durable queues, which are quorum queues, are delivered and not acked."""
    return _asked(node, url, "query_messages_checked_out")


def message_count(node: RabbitMqNode, url: str) -> int:
    """Returns how many packages the durable queues hold, which are quorum queues, delivered or not."""
    return _asked(node, url, "query_messages_total")


def listed(node: RabbitMqNode, url: str | None, what: str, *columns: str) -> list[dict[str, Any]]:
    """Returns what `rabbitmqctl list_<what>` lists, of one virtual host unless that is None."""
    place = [] if url is None else ["-p", _vhost(url)]
    rows: list[dict[str, Any]] = json.loads(node.ctl(f"list_{what}", *place, "--formatter", "json", *columns))
    return rows


def _asked(node: RabbitMqNode, url: str, query: str) -> int:
    # What rabbitmqctl lists of a quorum queue is some seconds old; this asks the queues themselves.
    ask = f"{{ok, {{_, Count}}, _}} = ra:local_query(amqqueue:get_pid(Queue), fun rabbit_fifo:{query}/1), Count"
    of_queue = f"fun(Queue) -> {ask} end"
    are_ours = "amqqueue:get_type(Queue) =:= rabbit_quorum_queue"
    queues = f'[Queue || Queue <- rabbit_amqqueue:list(<<"{_vhost(url)}">>), {are_ours}]'
    return int(node.evaluate(f"lists:sum(lists:map({of_queue}, {queues}))."))


def _vhost(url: str) -> str:
    return unquote(urlsplit(url).path[1:])
