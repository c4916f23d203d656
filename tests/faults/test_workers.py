"""Worker programs are killed, suspended and stopped while they write, and go away and come back."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_client.errors import CallTimeoutError
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from provgate_storage import RevisionData
from tests.faults.held_writes import commits_held, rows_held
from tests.faults.load import Load, check
from tests.faults.watched_write import WatchedWrite
from tests.support.broker import message_count, unacked_count
from tests.support.link import Link, Mode
from tests.support.loss_checker import Checker
from tests.support.packages import AmqpSender, stored_count
from tests.support.polling import eventually

pytestmark = pytest.mark.faults

TAKEN_OVER_S = 90.0
PACKAGE_SIZE = 100

# As many packages as a worker program takes in hand at once.
ENTRY_COUNT = 2_000


def dated(count: int, year: int = 2020, prefix: str = "") -> dict[bytes, datetime]:
    """Returns contents of all ranges."""
    date = datetime(year, 1, 2, tzinfo=UTC)
    return {hashlib.sha1(f"{prefix}{number}".encode()).digest(): date for number in range(count)}


def assert_nothing_put_aside(broker_url: str) -> None:
    with AmqpSender(broker_url) as sender:
        assert sender.message_count(DEAD_LETTER_QUEUE) == sender.message_count(QUARANTINE_QUEUE) == 0


@dataclass(frozen=True)
class Relay:
    """A worker program behind a link to the broker, another one that stands by, and a gateway.

    Attributes:
        stack: all of them; the gateway is the first.
        link: of the worker program to the broker; what breaks it breaks the connections for replies alone.
        url: of the broker, directly.
        dsn: of the database.
        storage_config: of the same database.
        node: the broker.
        checker: of the test.
    """

    stack: Stack
    link: Link
    url: str
    dsn: str
    storage_config: StorageConfig
    node: RabbitMqNode
    checker: Checker

    @contextmanager
    def write(self) -> Iterator[WatchedWrite]:
        """Begins the write of which every test kills the writer."""
        with WatchedWrite(self.stack.address, self.checker, "content_add", dated(ENTRY_COUNT)) as write:
            yield write

    def kill_writer(self) -> None:
        """Kills the worker program that is not standing by. What its link holds is lost with it."""
        self.stack.workers[0].kill()
        self.link.reset()
        self.link.mode = Mode.PASS

    def check(self, write: WatchedWrite) -> None:
        """Has the one that stands by take over, and compares what is held."""
        write.result()
        eventually(lambda: message_count(self.node, self.url) == 0, "every package is delivered again", TAKEN_OVER_S)
        check(self.checker, self.storage_config)
        assert stored_count(self.storage_config, dated(ENTRY_COUNT)) == ENTRY_COUNT
        assert_nothing_put_aside(self.url)


@pytest.fixture
def relay(
    small_stack: Stack, broker_url: str, database_dsn: str, rabbitmq_node: RabbitMqNode, checker: Checker
) -> Iterator[Relay]:
    with Link("127.0.0.1", rabbitmq_node.port) as link:
        # In the name of the connections that replies go out on.
        link.only = b" replies"
        # A write that is held is not given up in the meantime.
        storage_config = postgresql_storage(database_dsn, lock_timeout_s=60)
        small_stack.start_workers(url=linked_url(broker_url, link), storage_config=storage_config)
        small_stack.start_workers(storage_config=storage_config)
        small_stack.start_gateway(
            listen=small_stack.address, batch_size=PACKAGE_SIZE, wait_min=TAKEN_OVER_S, wait_per_batch=0
        )
        yield Relay(small_stack, link, broker_url, database_dsn, storage_config, rabbitmq_node, checker)
        small_stack.kill()


def linked_url(url: str, link: Link) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{link.port}/")


def test_a_kill_before_commit(relay: Relay) -> None:
    with rows_held(relay.dsn, dated(ENTRY_COUNT)) as held, relay.write() as write:
        held.wait_waiting("INSERT")
        write.wait_published()
        assert write.acked_count == 0
        relay.kill_writer()
        held.release()
        relay.check(write)


def test_a_kill_during_commit(relay: Relay) -> None:
    with commits_held(relay.dsn) as held, relay.write() as write:
        held.wait_waiting("COMMIT")
        write.wait_published()
        assert write.acked_count == 0
        # What the database does with a COMMIT that it has been given no longer depends on who gave it.
        relay.kill_writer()
        held.release()
        relay.check(write)


def test_a_kill_between_commit_and_reply(relay: Relay) -> None:
    with commits_held(relay.dsn) as held, relay.write() as write:
        held.wait_waiting("COMMIT")
        relay.link.mode = Mode.BLACK_HOLE
        held.release()
        committed_in_full(relay)
        assert write.acked_count == 0
        # None is acked to the broker, or it would be lost to the sender with its reply.
        assert unacked_count(relay.node, relay.url) == message_count(relay.node, relay.url) > 0
        relay.kill_writer()
        relay.check(write)


def test_a_kill_between_reply_and_delivery_ack(relay: Relay) -> None:
    with commits_held(relay.dsn) as held, relay.write() as write:
        held.wait_waiting("COMMIT")
        relay.link.mode = Mode.NO_ANSWER
        held.release()
        write.result()
        assert unacked_count(relay.node, relay.url) == message_count(relay.node, relay.url) > 0
        relay.kill_writer()
        # The second replies to packages that are acked count for nothing.
        relay.check(write)
    assert "Traceback" not in relay.stack.gateways[0].log_path.read_text()


def committed_in_full(relay: Relay) -> None:
    contents = dated(ENTRY_COUNT)
    eventually(lambda: stored_count(relay.storage_config, contents) == ENTRY_COUNT, "all is committed", TAKEN_OVER_S)


def test_a_kill_during_a_large_write(
    small_stack: Stack, storage_config: StorageConfig, broker_url: str, checker: Checker
) -> None:
    small_stack.start()
    small_stack.start_workers()
    contents = dated(200_000)
    with WatchedWrite(small_stack.address, checker, "content_add", contents) as write:
        write.wait_acked(1)
        small_stack.workers[0].kill()
        assert write.acked_count < len(contents)
        write.result()
    check(checker, storage_config)
    assert_nothing_put_aside(broker_url)


@pytest.mark.parametrize("request_", [signal.SIGTERM, signal.SIGINT])
def test_one_that_is_asked_to_stop_leaves_a_flood_to_the_others(
    small_stack: Stack, storage_config: StorageConfig, broker_url: str, checker: Checker, request_: signal.Signals
) -> None:
    small_stack.start()
    small_stack.start_workers()
    with Load(small_stack.address, checker) as load:
        load.wait_for_acks()
        with WatchedWrite(small_stack.address, checker, "content_add", dated(100_000)) as flood:
            flood.wait_acked(1)
            assert small_stack.workers[0].terminate(request=request_) == 0
            assert not flood.done
            load.wait_for_acks()
            flood.result()
        load.stop()
        assert not load.failures
    check(checker, storage_config)
    assert_nothing_put_aside(broker_url)


def test_a_write_waits_for_workers_that_come_back(
    small_stack: Stack, rabbitmq_node: RabbitMqNode, broker_url: str, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start()
    small_stack.workers[0].stop()
    with WatchedWrite(small_stack.address, checker, "content_add", dated(20_000)) as write:
        write.wait_published()
        small_stack.workers[0].kill()
        # The packages that were in hand are back.
        eventually(
            lambda: unacked_count(rabbitmq_node, broker_url) == 0, "the worker is known to be gone", TAKEN_OVER_S
        )
        assert not write.done
        small_stack.start_workers()
        write.result()
    check(checker, storage_config)


def test_a_write_waits_for_workers_until_its_limits(
    small_stack: Stack, storage_config: StorageConfig, checker: Checker
) -> None:
    workers = small_stack.start_workers()
    small_stack.start_gateway(listen=small_stack.address, wait_min=2, wait_per_batch=0)
    contents = dated(5_000)
    workers.kill()
    with WatchedWrite(small_stack.address, checker, "content_add", contents) as write:
        error = write.error()
    assert isinstance(error, CallTimeoutError)
    assert error.status.counts is not None
    assert (error.status.counts.published_count, error.status.counts.acked_count) == (len(contents), 0)
    workers.start()
    # It was not acked, and it is stored all the same: the packages were safe.
    eventually(lambda: stored_count(storage_config, contents) == len(contents), "they are stored", TAKEN_OVER_S)
    with WatchedWrite(small_stack.address, checker, "content_add", contents) as write:
        write.result()
    check(checker, storage_config)


@pytest.mark.parametrize(
    ("heartbeat_s", "suspended_s"), [(1, 0), pytest.param(10, 60, marks=[pytest.mark.long, pytest.mark.timeout(400)])]
)
def test_one_that_is_suspended_is_replaced_and_what_it_writes_late_does_no_harm(
    small_stack: Stack,
    rabbitmq_node: RabbitMqNode,
    broker_url: str,
    database_dsn: str,
    storage_config: StorageConfig,
    checker: Checker,
    heartbeat_s: int,
    suspended_s: float,
) -> None:
    with Link("127.0.0.1", int(parse_dsn(database_dsn)["port"])) as link:
        linked_dsn = make_dsn(database_dsn, host="127.0.0.1", port=link.port, application_name="suspended")
        first = small_stack.start_workers(heartbeat=heartbeat_s, storage_config=postgresql_storage(linked_dsn))
        small_stack.start_workers(heartbeat=heartbeat_s)
        small_stack.start_gateway(listen=small_stack.address)
        log_writers(database_dsn)
        write_of_year(small_stack, checker, 2019)
        link.mode = Mode.BLACK_HOLE
        with WatchedWrite(small_stack.address, checker, "revision_add", revisions(2018)) as write:
            eventually(lambda: link.held_count > 0, "it writes")
            first.stop()
            write.result()
        # The dates that the suspended one is about to write are later than these, and the origins are others.
        write_of_year(small_stack, checker, 2017)
        time.sleep(suspended_s)
        assert writer_names(database_dsn)[-1] != "suspended write"
        link.mode = Mode.PASS
        first.cont()
        eventually(lambda: writer_names(database_dsn)[-1] == "suspended write", "it writes late", TAKEN_OVER_S)
        eventually(lambda: message_count(rabbitmq_node, broker_url) == 0, "no package is left", TAKEN_OVER_S)
        check(checker, storage_config)
        write_of_year(small_stack, checker, 2016)
        check(checker, storage_config)
        assert_nothing_put_aside(broker_url)
        assert first.terminate() == 0


def revisions(year: int) -> dict[bytes, RevisionData]:
    """Returns the same revisions for every year, with a date and an origin of that year."""
    origin = hashlib.sha1(b"%d" % year).digest()
    return {id: RevisionData(date, origin) for id, date in dated(500, year).items()}


def write_of_year(stack: Stack, checker: Checker, year: int) -> None:
    with WatchedWrite(stack.address, checker, "revision_add", revisions(year)) as write:
        write.result()


def log_writers(dsn: str) -> None:
    """Has the database note by what name each program that writes revisions is known to it."""
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            """CREATE TABLE writer (number serial, name text);
            CREATE FUNCTION note_writer() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO writer (name) VALUES (current_setting('application_name')); RETURN NULL; END $$;
            CREATE TRIGGER note_writer AFTER INSERT ON revision EXECUTE FUNCTION note_writer()"""
        )
    connection.close()


def writer_names(dsn: str) -> list[str]:
    """Returns the names in the order of their writes."""
    connection = psycopg2.connect(dsn)
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM writer ORDER BY number")
        names = [name for (name,) in cursor.fetchall()]
    connection.close()
    return names
