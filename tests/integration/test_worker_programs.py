"""Worker programs as an operator sees them: started, stopped, killed, several at once, and with trouble around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_stack.processes.process import ChildProgram
from provgate_stack.processes.programs import program_path
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.support.broker import consumers
from tests.support.packages import AmqpSender, content_ids, publish, stored_count
from tests.support.programs import config_with, run_workers

QUEUE_COUNT = 160


@pytest.fixture
def sender(small_stack: Stack, amqp_url: str) -> Iterator[AmqpSender]:
    with AmqpSender(amqp_url) as sender:
        yield sender


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


def test_a_killed_process_is_started_again(small_stack: Stack, sender: AmqpSender) -> None:
    program = small_stack.start_workers()
    for child in psutil.Process(program.pid).children():
        child.kill()
    assert len(sender.replies_to(*publish(sender, content_ids(500), package_size=10))) > 50
    assert program.terminate() == 0


def test_processes_do_not_outlive_their_program(small_stack: Stack) -> None:
    program = small_stack.start_workers()
    children = psutil.Process(program.pid).children()
    assert len(children) == 2
    psutil.Process(program.pid).kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_what_does_not_fit_in_hand_waits_in_the_broker(
    small_stack: Stack, sender: AmqpSender, postgres_dsn: str
) -> None:
    small_stack.start_workers(processes=1, max_in_hand_bytes=1024 * 1024)
    ids = content_ids(100_000)
    sender.replies_to(*publish(sender, ids, package_size=5_000))
    assert stored_count(postgresql_storage(postgres_dsn), ids) == len(ids)
    assert sender.message_count(QUARANTINE_QUEUE) == sender.message_count(DEAD_LETTER_QUEUE) == 0


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"topology": "existing"}, "provenance.rabbitmq.topology: "),
        ({"preferred": ["content.0-1f"]}, "provenance.rabbitmq.preferred[0]: "),
        ({"ranges": {"content": 3}}, "provenance.rabbitmq.ranges.content: "),
        ({"storage_config": {}}, "provenance.rabbitmq.storage_config.cls: "),
        ({"storage_config": {"cls": "grpc", "url": "localhost:1"}}, "provenance.rabbitmq.storage_config.cls: "),
        ({"storage_config": {"cls": "postgresql", "db": {"nonsense": "x"}}}, "provenance.rabbitmq.storage_config.db"),
        ({"url": "http://secret@somewhere"}, "provenance.rabbitmq.url: "),
        ({"prefetch": 1}, "provenance.rabbitmq"),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_named(
    small_stack: Stack, tmp_path: Path, overrides: dict[str, object], said: str
) -> None:
    ended = run_workers(config_with(small_stack, tmp_path, **overrides), "run")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "secret" not in ended.stderr


def test_a_program_waits_for_its_servers_until_it_is_told_to_stop(
    small_stack: Stack, tmp_path: Path, amqp_url: str
) -> None:
    config = config_with(small_stack, tmp_path, url="amqp://guest:guest@127.0.0.1:1/%2f")
    program = ChildProgram(
        [program_path("provgate-workers"), "run", "--config", str(config)], {}, tmp_path / "workers.log"
    )
    program.start()
    program.wait_until(lambda: "cannot be used yet" in program.log_path.read_text(), 20)
    assert program.terminate(timeout_s=10) == 0


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
    assert run_workers(config, "setup").returncode == 0
