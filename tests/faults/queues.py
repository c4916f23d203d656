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
    program_of = {
        f"provgate-workers {child.pid} deliveries": program
        for program in programs
        if program.alive
        for child in psutil.Process(program.pid).children()
    }
    name_of = {
        connection["pid"]: {key: value for key, _, value in connection["client_properties"]}["connection_name"]
        for connection in listed(node, None, "connections", "pid", "client_properties")
    }
    connection_of = {
        channel["pid"]: channel["connection"] for channel in listed(node, None, "channels", "pid", "connection")
    }
    return {
        consumer["queue_name"]: program_of[name_of[connection_of[consumer["channel_pid"]]]]
        for consumer in listed(node, url, "consumers", "queue_name", "channel_pid", "active")
        if consumer["active"] and not consumer["queue_name"].startswith("amq.")
    }


def unacked_count(node: RabbitMqNode, url: str) -> int:
    """Returns how many packages of the work queues are delivered and not acked."""
    return sum(queue["messages_unacknowledged"] for queue in _work_queues(node, url))


def message_count(node: RabbitMqNode, url: str) -> int:
    """Returns how many packages the work queues hold, delivered or not."""
    return sum(queue["messages"] for queue in _work_queues(node, url))


def listed(node: RabbitMqNode, url: str | None, what: str, *columns: str) -> list[dict[str, Any]]:
    """Returns what `rabbitmqctl list_<what>` lists, of one virtual host unless that is None."""
    place = [] if url is None else ["-p", unquote(urlsplit(url).path[1:])]
    rows: list[dict[str, Any]] = json.loads(node.ctl(f"list_{what}", *place, "--formatter", "json", *columns))
    return rows


def _work_queues(node: RabbitMqNode, url: str) -> list[dict[str, Any]]:
    queues = listed(node, url, "queues", "name", "messages", "messages_unacknowledged")
    return [queue for queue in queues if "_add." in queue["name"]]
