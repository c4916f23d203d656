"""Worker programs as an operator sees them: started, stopped, killed, several at once, and with trouble around them."""

from __future__ import annotations

import hashlib
import json
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil
import psycopg2
import pytest
import yaml

from provgate_broker.aside import REASON_HEADER
from provgate_broker.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_broker.wire import encode_package
from provgate_stack.directory import StackDirectory
from provgate_stack.process import ChildProgram
from provgate_stack.programs import program_path
from provgate_stack.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from provgate_storage import get_provenance_storage
from tests.amqp_sender import AmqpSender

DATE = datetime(2020, 1, 2, tzinfo=UTC)
QUEUE_COUNT = 160

# A topology of 19 queues, which is set up and removed sooner than one of 160.
FEW = {"content": 4, "directory": 1, "location": 1, "origin": 1, "revision": 1}


def content_ids(count: int, prefix: str = "") -> list[bytes]:
    return [hashlib.sha1(f"{prefix}{number}".encode()).digest() for number in range(count)]


def publish(sender: AmqpSender, ids: list[bytes], package_size: int = 100) -> list[str]:
    """Publishes contents in packages, by range."""
    by_range: dict[int, list[bytes]] = {}
    for id in ids:
        by_range.setdefault(id[0] * FEW["content"] // 256, []).append(id)
    return [
        sender.publish(
            "content",
            f"content_add.unknown.{range_number:x}",
            encode_package((id, DATE) for id in members[start : start + package_size]),
        )
        for range_number, members in by_range.items()
        for start in range(0, len(members), package_size)
    ]


def stored_count(dsn: str, ids: list[bytes]) -> int:
    with get_provenance_storage("postgresql", db=dsn) as storage:
        return len(storage.content_get(ids))


def consumers(node: RabbitMqNode, url: str) -> dict[str, list[tuple[bool, str]]]:
    """Returns, of each queue, whether its consumers are active and what their status is."""
    vhost = unquote(urlsplit(url).path[1:])
    listed = json.loads(
        node.ctl("list_consumers", "-p", vhost, "--formatter", "json", "queue_name", "active", "activity_status")
    )
    queues: dict[str, list[tuple[bool, str]]] = {}
    for consumer in listed:
        queues.setdefault(consumer["queue_name"], []).append((consumer["active"], consumer["activity_status"]))
    return queues


@pytest.fixture
def small_stack(amqp_url: str, postgres_dsn: str, stack_directory: StackDirectory) -> Iterator[Stack]:
    """A stack with few queues, of which nothing is started yet."""
    name = f"stack-{secrets.token_hex(4)}"
    stack = Stack(amqp_url, postgres_dsn, stack_directory, {"rabbitmq": {"ranges": FEW}}, name)
    yield stack
    stack.kill()


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


def test_programs_share_the_ranges_that_they_prefer(
    small_stack: Stack, amqp_url: str, rabbitmq_node: RabbitMqNode, sender: AmqpSender
) -> None:
    low, high = ["content.0-1"], ["content.2-3", "directory", "location", "origin", "revision"]
    small_stack.start_workers(wait=False, preferred=low, standby_delay=3)
    small_stack.start_workers(wait=False, preferred=high, standby_delay=3)
    for program in small_stack.workers:
        program.wait_ready()
    replied = publish(sender, content_ids(200), package_size=1)
    sender.replies_to(*replied)
    queues = consumers(rabbitmq_node, amqp_url)
    assert all(len(found) == 2 for found in queues.values() if found != [(True, "up")])
    small_stack.workers[1].kill()
    assert sender.replies_to(*publish(sender, content_ids(200, "more"), package_size=1)) == [1] * 200


def test_a_killed_program_loses_nothing(small_stack: Stack, sender: AmqpSender, postgres_dsn: str) -> None:
    first = small_stack.start_workers()
    small_stack.start_workers()
    ids = content_ids(100_000)
    replied = publish(sender, ids, package_size=500)
    sender.wait_until(lambda: len(sender.replies) > len(replied) // 10)
    first.kill()
    sender.replies_to(*replied, timeout_s=60)
    assert stored_count(postgres_dsn, ids) == len(ids)
    assert sum(reply[0] for reply in sender.replies.values() if isinstance(reply[0], int)) == len(ids)
    assert sender.message_count(DEAD_LETTER_QUEUE) == 0


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


@pytest.mark.parametrize("request_", [signal.SIGTERM, signal.SIGINT])
def test_a_program_stops_cleanly_under_a_flood(
    small_stack: Stack, sender: AmqpSender, postgres_dsn: str, request_: signal.Signals
) -> None:
    first = small_stack.start_workers()
    ids = content_ids(50_000)
    replied = publish(sender, ids, package_size=100)
    sender.wait_until(lambda: len(sender.replies) > 20)
    assert first.terminate(request=request_) == 0
    small_stack.start_workers()
    sender.replies_to(*replied)
    assert stored_count(postgres_dsn, ids) == len(ids)


def test_a_package_that_kills_its_process_becomes_a_dead_letter(
    small_stack: Stack, sender: AmqpSender, postgres_dsn: str
) -> None:
    program = small_stack.start_workers(poison_after=1, processes=1)
    deadly, *harmless = [b"\xaa" + id[1:] for id in content_ids(41)]
    with psycopg2.connect(postgres_dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"""CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN IF NEW.id = '\\x{deadly.hex()}' THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;
                CREATE TRIGGER linger BEFORE INSERT ON content FOR EACH ROW EXECUTE FUNCTION linger()"""
        )
    replied = publish(sender, harmless[:20], package_size=1)
    publish(sender, [deadly], package_size=1)
    replied += publish(sender, harmless[20:], package_size=1)
    watcher = psycopg2.connect(postgres_dsn)
    watcher.autocommit = True
    kill_count = 0
    deadline = time.monotonic() + 60
    while not sender.message_count(DEAD_LETTER_QUEUE):
        assert time.monotonic() < deadline
        with watcher.cursor() as cursor:
            cursor.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            sleeping = [pid for (pid,) in cursor.fetchall()]
            if sleeping:
                kill_count += 1
                for child in psutil.Process(program.pid).children():
                    child.kill()
                for pid in sleeping:
                    cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))
        sender.wait_until(lambda: True)
        time.sleep(0.05)
    watcher.close()
    # It is delivered three times, the third time alone in its batch, and then alone in its process.
    assert kill_count == 3
    assert sender.replies_to(*replied, timeout_s=30) == [1] * len(harmless)
    properties, body = sender.take(DEAD_LETTER_QUEUE)
    assert body == encode_package([(deadly, DATE)])
    assert (properties.headers or {})[REASON_HEADER] == "poison"
    assert sender.message_count(DEAD_LETTER_QUEUE) == sender.message_count(QUARANTINE_QUEUE) == 0
    assert stored_count(postgres_dsn, harmless) == len(harmless)


def test_a_suspended_program_is_replaced_and_comes_back(
    small_stack: Stack, sender: AmqpSender, postgres_dsn: str
) -> None:
    # A program that is suspended in a transaction holds locks, until the database ends its session.
    storage_config = {"cls": "postgresql", "db": postgres_dsn, "lock_timeout_s": 2}
    first = small_stack.start_workers(heartbeat=1, storage_config=storage_config)
    small_stack.start_workers(heartbeat=1, storage_config=storage_config)
    ids = content_ids(30_000)
    replied = publish(sender, ids, package_size=100)
    sender.wait_until(lambda: len(sender.replies) > len(replied) // 10)
    first.stop()
    sender.replies_to(*replied)
    first.cont()
    assert stored_count(postgres_dsn, ids) == len(ids)
    sender.replies_to(*publish(sender, content_ids(100, "more")))
    assert sender.message_count(DEAD_LETTER_QUEUE) == 0
    assert first.terminate() == 0


def test_what_does_not_fit_in_hand_waits_in_the_broker(
    small_stack: Stack, sender: AmqpSender, postgres_dsn: str
) -> None:
    small_stack.start_workers(processes=1, max_in_hand_bytes=1024 * 1024)
    ids = content_ids(100_000)
    sender.replies_to(*publish(sender, ids, package_size=5_000))
    assert stored_count(postgres_dsn, ids) == len(ids)
    assert sender.message_count(QUARANTINE_QUEUE) == sender.message_count(DEAD_LETTER_QUEUE) == 0


def test_classic_queues_are_served_by_one_program_at_a_time(
    small_stack: Stack, sender: AmqpSender, amqp_url: str, rabbitmq_node: RabbitMqNode
) -> None:
    first = small_stack.start_workers(queue_type="classic")
    small_stack.start_workers(queue_type="classic")
    queues = consumers(rabbitmq_node, amqp_url)
    assert len([name for name in queues if not name.startswith("amq.")]) == 19
    assert all(len(found) == 1 for found in queues.values())
    replied = publish(sender, content_ids(5_000), package_size=10)
    sender.wait_until(lambda: len(sender.replies) > 10)
    first.kill()
    sender.replies_to(*replied)
    assert sender.message_count(DEAD_LETTER_QUEUE) == 0


def run(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [program_path("provgate-workers"), *arguments, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def config_with(stack: Stack, tmp_path: Path, **overrides: object) -> Path:
    document = yaml.safe_load(stack.config.read_text())
    document["provenance"]["rabbitmq"] |= overrides
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


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
    ended = run(config_with(small_stack, tmp_path, **overrides), "run")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "secret" not in ended.stderr


def test_queues_with_other_arguments_are_named(small_stack: Stack, sender: AmqpSender) -> None:
    sender.amqp_channel.queue_declare("content_add.unknown.0", durable=True)
    ended = run(small_stack.config, "run")
    assert ended.returncode == 1
    assert "queue content_add.unknown.0 is on the broker with other properties" in ended.stderr


def test_the_range_count_changes_only_by_setup_and_never_under_packages(
    small_stack: Stack, sender: AmqpSender, tmp_path: Path
) -> None:
    assert run(small_stack.config, "setup").returncode == 0
    sender.publish("content", "content_add.unknown.3", encode_package([(b"\xff" * 20, DATE)]))
    config = config_with(small_stack, tmp_path, ranges={**FEW, "content": 2})
    refused = run(config, "run")
    assert refused.returncode == 1
    assert "provenance.rabbitmq.ranges.content is 2, and the database was set up with 4" in refused.stderr
    refused = run(config, "setup")
    assert refused.returncode == 1
    assert "queue content_add.unknown.3 holds 1 packages" in refused.stderr
    sender.amqp_channel.queue_purge("content_add.unknown.3")
    assert run(config, "setup").returncode == 0
    refused = run(small_stack.config, "run")
    assert refused.returncode == 1
    assert "provenance.rabbitmq.ranges.content is 4, and the database was set up with 2" in refused.stderr


def test_a_schema_of_a_newer_program_is_named(small_stack: Stack, postgres_dsn: str) -> None:
    assert run(small_stack.config, "setup").returncode == 0
    with psycopg2.connect(postgres_dsn) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE schema_version SET version = version + 1")
    for command in ("run", "setup"):
        refused = run(small_stack.config, command)
        assert refused.returncode == 1
        assert "newer than version" in refused.stderr


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


def test_dead_letters_are_listed_shown_replayed_and_dropped(
    small_stack: Stack, sender: AmqpSender, postgres_dsn: str
) -> None:
    small_stack.start_workers()
    refused, good = b"\xab" * 20, b"\xac" * 20
    with psycopg2.connect(postgres_dsn) as connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE content ADD CONSTRAINT no_such_id CHECK (id <> '\\x{refused.hex()}')")
    sender.publish("content", "content_add.unknown.2", encode_package([(refused, DATE), (good, DATE)]))
    sender.publish("content", "content_add.unknown.2", b"garbage", headers={"note": "mine"})
    sender.wait_until(lambda: sender.message_count(DEAD_LETTER_QUEUE) == 2)

    listed = [json.loads(line) for line in run(small_stack.config, "dlq", "list", "--json").stdout.splitlines()]
    by_reason = {letter["reason"]: letter for letter in listed}
    assert set(by_reason) == {"refused", "malformed"}
    assert by_reason["refused"]["row_count"] == 2
    assert len(run(small_stack.config, "dlq", "list").stdout.splitlines()) == 2

    shown = json.loads(run(small_stack.config, "dlq", "show", by_reason["refused"]["id"][:12]).stdout)
    assert [row[0] for row in shown["rows"]] == [refused.hex(), good.hex()]
    shown = json.loads(run(small_stack.config, "dlq", "show", by_reason["malformed"]["id"]).stdout)
    assert shown["body_hex"] == b"garbage".hex()
    assert shown["headers"]["note"] == "mine"

    again = run(small_stack.config, "dlq", "replay", "--all")
    assert again.returncode == 1
    assert again.stdout.count("refused again") == 2
    assert sender.message_count(DEAD_LETTER_QUEUE) == 2

    with psycopg2.connect(postgres_dsn) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE content DROP CONSTRAINT no_such_id")
    listed = [json.loads(line) for line in run(small_stack.config, "dlq", "list", "--json").stdout.splitlines()]
    by_reason = {letter["reason"]: letter for letter in listed}
    replayed = run(small_stack.config, "dlq", "replay", by_reason["refused"]["id"])
    assert (replayed.returncode, replayed.stdout) == (0, f"stored {by_reason['refused']['id']}: 2 rows\n")
    assert stored_count(postgres_dsn, [refused, good]) == 2

    assert run(small_stack.config, "dlq", "drop", "no-such-id").returncode == 1
    assert run(small_stack.config, "dlq", "drop").returncode == 2
    assert sender.message_count(DEAD_LETTER_QUEUE) == 1
    assert run(small_stack.config, "dlq", "drop", "--all").returncode == 0
    assert sender.message_count(DEAD_LETTER_QUEUE) == 0


def test_a_replay_that_nobody_answers_stays(small_stack: Stack, sender: AmqpSender) -> None:
    program = small_stack.start_workers()
    sender.publish("content", "content_add.unknown.2", b"garbage")
    sender.wait_until(lambda: sender.message_count(DEAD_LETTER_QUEUE) == 1)
    program.terminate()
    kept = run(small_stack.config, "dlq", "replay", "--all", "--timeout", "1")
    assert kept.returncode == 1
    assert "no worker replied" in kept.stdout
    assert sender.message_count(DEAD_LETTER_QUEUE) == 1
