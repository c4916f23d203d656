"""Gateways and worker programs as an operator sees them: started, stopped, killed, suspended, and their watch port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import psutil
import psycopg2
import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import ChildProgram
from provgate_stack.processes.programs import program_path
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.support.broker import consumers
from tests.support.gateway_calls import health, wait_serving
from tests.support.packages import AmqpSender, content_ids, publish, stored_count
from tests.support.polling import eventually
from tests.support.programs import config_with, failed_start, run_workers
from tests.support.watch_port import probe

QUEUE_COUNT = 160


@pytest.fixture
def sender(small_stack: Stack, amqp_url: str) -> Iterator[AmqpSender]:
    with AmqpSender(amqp_url) as sender:
        yield sender


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def is_listening(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as asking:
        return asking.connect_ex((host, int(port))) == 0


def wait_until_serving(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        wait_serving(channel)


def test_a_gateway_serves_where_it_is_configured_and_a_second_one_elsewhere(shared_stack: Stack) -> None:
    first = shared_stack.gateways[0]
    assert first.address == shared_stack.address
    wait_until_serving(first.address)
    second = shared_stack.start_gateway()
    assert second.address != shared_stack.address
    wait_until_serving(second.address)
    assert second.terminate() == 0
    first.stop()
    with grpc.insecure_channel(first.address) as channel:
        with pytest.raises(grpc.RpcError):
            health(channel, timeout_s=0.5)
        first.cont()
        wait_serving(channel)


def test_both_are_alive_and_ready(shared_stack: Stack) -> None:
    gateway, workers = shared_stack.metrics_addresses()
    assert probe(gateway, "/healthz").ok
    assert probe(workers, "/healthz").ok
    eventually(lambda: probe(gateway, "/readyz").ok, "the gateway is ready")
    eventually(lambda: probe(workers, "/readyz").ok, "the workers are ready")
    of_gateway = ("stopping", "ranges", "broker", "blocked", "storage", "topology", "consumers", "certificate")
    assert set(probe(gateway, "/readyz").problems) >= set(of_gateway)
    of_workers = ("stopping", "preparation", "process_0", "process_1", "broker", "storage")
    assert set(probe(workers, "/readyz").problems) == set(of_workers)


def test_programs_come_back_after_a_kill_and_end_with_zero_when_asked(small_stack: Stack) -> None:
    small_stack.start()
    (gateway,), (workers,) = small_stack.gateways, small_stack.workers
    gateway.kill()
    gateway.start()
    gateway.wait_ready()
    assert gateway.address == small_stack.address
    wait_until_serving(gateway.address)
    assert gateway.terminate() == workers.terminate() == 0
    assert not gateway.alive
    assert not workers.alive
    assert not is_listening(gateway.metrics_address)


def test_each_queue_has_one_active_consumer(bare_stack: Stack, amqp_url: str, rabbitmq_node: RabbitMqNode) -> None:
    bare_stack.start_workers()
    queues = consumers(rabbitmq_node, amqp_url)
    assert len(queues) == QUEUE_COUNT
    assert all(found == [(True, "single_active")] for found in queues.values())
    bare_stack.start_workers()
    queues = consumers(rabbitmq_node, amqp_url)
    assert len(queues) == QUEUE_COUNT
    assert all(sorted(found) == [(False, "waiting"), (True, "single_active")] for found in queues.values())
    assert [program.terminate() for program in bare_stack.workers] == [0, 0]
    assert not any(program.ready_file.exists() for program in bare_stack.workers)


def test_processes_are_started_again_and_do_not_outlive_their_program(small_stack: Stack, sender: AmqpSender) -> None:
    program = psutil.Process(small_stack.start_workers().pid)
    killed = program.children()
    assert len(killed) == 2
    for child in killed:
        child.kill()
    assert len(sender.replies_to(*publish(sender, content_ids(500), package_size=10), timeout_s=60)) > 50
    children = program.children()
    program.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_what_does_not_fit_in_hand_waits_in_the_broker(
    small_stack: Stack, sender: AmqpSender, postgres_dsn: str
) -> None:
    small_stack.start_workers(processes=1, max_in_hand_bytes=1024 * 1024)
    ids = content_ids(100_000)
    sender.replies_to(*publish(sender, ids, package_size=5_000), timeout_s=120)
    assert stored_count(postgresql_storage(postgres_dsn), ids) == len(ids)
    assert sender.message_count(QUARANTINE_QUEUE) == sender.message_count(DEAD_LETTER_QUEUE) == 0


WRONG: list[tuple[dict[str, object], str]] = [
    ({"topology": "existing"}, "provenance.rabbitmq.topology: "),
    ({"preferred": ["content.0-1f"]}, "provenance.rabbitmq.preferred[0]: "),
    ({"ranges": {"content": 3}}, "provenance.rabbitmq.ranges.content: "),
    ({"storage_config": {}}, "provenance.rabbitmq.storage_config.cls: "),
    ({"storage_config": {"cls": "grpc", "url": "localhost:1"}}, "provenance.rabbitmq.storage_config.cls: "),
    ({"storage_config": {"cls": "postgresql", "db": {"nonsense": "x"}}}, "provenance.rabbitmq.storage_config.db"),
    ({"url": "http://secret@somewhere"}, "provenance.rabbitmq.url: "),
    ({"prefetch": 1}, "provenance.rabbitmq"),
]


def test_a_wrong_configuration_is_named(small_stack: Stack, tmp_path: Path) -> None:
    for overrides, said in WRONG:
        ended = run_workers(config_with(small_stack, tmp_path, **overrides), "run")
        assert ended.returncode == 2
        assert said in ended.stderr
        assert "secret" not in ended.stderr


def test_set_up_ends_where_a_table_is_never_free(small_stack: Stack, tmp_path: Path, postgres_dsn: str) -> None:
    assert run_workers(small_stack.config, "setup").returncode == 0
    config = config_with(
        small_stack, tmp_path, storage_config={**postgresql_storage(postgres_dsn), "lock_timeout_s": 0.1}
    )
    with closing(psycopg2.connect(postgres_dsn)) as writer, writer.cursor() as cursor:
        cursor.execute("DROP INDEX content_in_directory_dst")
        writer.commit()
        cursor.execute("LOCK TABLE content_in_directory IN ROW EXCLUSIVE MODE")
        done = run_workers(config, "setup")
        writer.rollback()
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "Error: the database cannot be set up, tried 5 times: PostgreSQL: " in done.stderr
    assert "lock timeout" in done.stderr
    assert run_workers(small_stack.config, "setup").returncode == 0


def test_programs_say_why_they_wait_and_can_be_stopped(stack_directory: StackDirectory) -> None:
    nowhere = {"cls": "postgresql", "db": {"host": "127.0.0.1", "port": 1, "dbname": "nowhere"}}
    stack = Stack("amqp://guest:hunter2@127.0.0.1:1/%2f", nowhere, stack_directory, name="stack-nowhere")
    programs = [stack.start_gateway(wait=False), stack.start_workers(wait=False)]
    try:
        for program, condition in zip(programs, ("broker", "preparation"), strict=True):
            address = program.metrics_address
            eventually(lambda address=address: is_listening(address), "the port is open")  # type: ignore[misc]
            eventually(
                lambda address=address, name=condition: "refused" in str(probe(address, "/readyz").problems[name]),  # type: ignore[misc]
                "it says why",
            )
            assert not probe(address, "/readyz").ok
            assert probe(address, "/healthz").ok
            assert not program.ready_file.exists()
        assert [program.terminate(timeout_s=20) for program in programs] == [0, 0]
    finally:
        stack.kill()
    for program in programs:
        log = program.log_path.read_text("utf-8")
        assert "hunter2" not in log
        assert "Traceback" not in log


def test_a_watch_port_that_was_asked_for_and_is_taken_ends_the_program(
    small_stack: Stack, tmp_path: Path, taken_port: int
) -> None:
    where = f"127.0.0.1:{taken_port}"
    code, log = failed_start(small_stack, metrics_listen=where)
    assert code == 1
    assert f"provenance.gateway.metrics_listen: {where} cannot be served on: " in log
    ended = run_workers(config_with(small_stack, tmp_path, metrics_listen=where), "run")
    assert ended.returncode == 1
    assert f"provenance.rabbitmq.metrics_listen: {where} cannot be served on: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_default_watch_port_that_is_taken_is_done_without(small_stack: Stack, tmp_path: Path) -> None:
    config = config_with(small_stack, tmp_path, metrics_listen=None)
    command = [program_path("provgate-workers"), "run", "--config", str(config)]
    programs = [ChildProgram(command, {}, tmp_path / f"{name}.log") for name in ("first", "second")]
    try:
        for program in programs:
            program.start()
        eventually(
            lambda: any("the program goes on without" in program.log_path.read_text() for program in programs),
            "one says so",
        )
        assert [program.terminate(timeout_s=60) for program in programs] == [0, 0]
    finally:
        for program in programs:
            program.kill()


def test_no_watch_port_is_opened_where_the_settings_say_off(small_stack: Stack) -> None:
    workers = small_stack.start_workers(metrics_listen="off")
    gateway = small_stack.start_gateway(metrics_listen="off")
    for program in (workers, gateway):
        listening = [each.laddr.port for each in psutil.Process(program.pid).net_connections("tcp") if not each.raddr]
        assert len(listening) == (1 if program is gateway else 0)
