"""The broker's queues and consumers, and its alarms, in which it blocks publishers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import unquote, urlsplit

import psutil

from provgate_stack.processes.programs import WorkerProgram
from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.support.polling import eventually

# Of each queue with an active consumer: its name, and the name of the connection that consumes it. A connection may be
# gone meanwhile.
_ACTIVE_CONNECTION_NAMES: Final = """
    Connection = fun(Channel) -> proplists:get_value(connection, rabbit_channel:info(Channel, [connection])) end,
    Properties = fun(Pid) -> proplists:get_value(client_properties, rabbit_reader:info(Pid, [client_properties])) end,
    Name = fun(Channel) ->
        try lists:keyfind(<<"connection_name">>, 1, Properties(Connection(Channel))) of
            {_, _, Text} -> binary_to_list(Text);
            false -> ""
        catch _:_ -> "" end end,
    [{binary_to_list(element(4, proplists:get_value(queue_name, C))), Name(proplists:get_value(channel_pid, C))}
        || C <- rabbit_amqqueue:consumers_all(<<"VHOST">>), proplists:get_value(active, C)]."""

Consumers = dict[str, list[tuple[bool, str]]]


def consumers(node: RabbitMqNode, url: str) -> Consumers:
    """Returns, for each queue, whether its consumers are active, and their status."""
    found: Consumers = {}
    columns = ("queue_name", "active", "activity_status")
    for consumer in json.loads(node.ctl("list_consumers", "-p", _vhost(url), "--formatter", "json", *columns)):
        found.setdefault(consumer["queue_name"], []).append((consumer["active"], consumer["activity_status"]))
    return found


def active_programs(node: RabbitMqNode, url: str, programs: list[WorkerProgram]) -> dict[str, WorkerProgram]:
    """Returns, for each queue that one of these worker programs consumes, that program."""
    program_of = {
        f"provgate-workers {child.pid} deliveries": program
        for program in programs
        if program.alive
        for child in psutil.Process(program.pid).children()
    }
    answer = node.evaluate(_ACTIVE_CONNECTION_NAMES.replace("VHOST", _vhost(url)))
    # rabbitmqctl breaks long texts at the end of a line.
    pairs = re.findall(r'\{"([^"]*)",\s*"([^"]*)"\}', re.sub(r'"\s*\n\s*"', "", answer))
    return {queue: program_of[name] for queue, name in pairs if name in program_of}


def queue_names(node: RabbitMqNode, url: str) -> set[str]:
    """Returns the names of all queues, reply queues too."""
    return {
        queue["name"] for queue in json.loads(node.ctl("list_queues", "-p", _vhost(url), "--formatter", "json", "name"))
    }


def unacked_count(node: RabbitMqNode, url: str) -> int:
    """Returns the number of delivered and unacked packages in the durable queues, which are quorum queues."""
    return _asked(node, url, "query_messages_checked_out")


def message_count(node: RabbitMqNode, url: str) -> int:
    """Returns the number of packages in the durable queues, which are quorum queues, delivered or not."""
    return _asked(node, url, "query_messages_total")


def _asked(node: RabbitMqNode, url: str, query: str) -> int:
    # The figures of rabbitmqctl are some seconds old; this asks the queues themselves.
    ask = f"{{ok, {{_, Count}}, _}} = ra:local_query(amqqueue:get_pid(Queue), fun rabbit_fifo:{query}/1), Count"
    of_queue = f"fun(Queue) -> {ask} end"
    is_quorum = "amqqueue:get_type(Queue) =:= rabbit_quorum_queue"
    queues = f'[Queue || Queue <- rabbit_amqqueue:list(<<"{_vhost(url)}">>), {is_quorum}]'
    return int(node.evaluate(f"lists:sum(lists:map({of_queue}, {queues}))."))


def _vhost(url: str) -> str:
    return unquote(urlsplit(url).path[1:])


def alarms(node: RabbitMqNode) -> str:
    """Returns the alarms of a node, as Erlang writes them."""
    return node.evaluate("rabbit_alarm:get_alarms().")


@contextmanager
def alarm(node: RabbitMqNode, resource: str) -> Iterator[None]:
    """Makes the broker block publishers for a block: it is short of `memory` or `disk`."""
    watermark = node.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().").strip()
    limits = {
        "memory": (("set_vm_memory_high_watermark", "0.0000001"), ("set_vm_memory_high_watermark", watermark)),
        "disk": (("set_disk_free_limit", str(10**15)), ("set_disk_free_limit", "50MB")),
    }
    raise_alarm, end_alarm = limits[resource]
    node.ctl(*raise_alarm)
    try:
        eventually(lambda: resource in alarms(node), "there is an alarm")
        yield
    finally:
        node.ctl(*end_alarm)
