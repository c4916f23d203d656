"""The database restarts, refuses connections, locks, conflicts and runs out of space, while writes go on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg2
import pytest
from psycopg2.extensions import connection

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.database_trouble import (
    NOTICED_S,
    RECOVERED_S,
    assert_idle,
    assert_unavailable,
    line_count,
    reads,
    under_load,
    wait_for_trouble,
)
from tests.faults.load import Writing, check
from tests.faults.small_disk import SmallDisk
from tests.support.broker import consumers
from tests.support.fix_stack import FEW_RANGES
from tests.support.loss_checker import Checker
from tests.support.polling import eventually

pytestmark = pytest.mark.faults


@contextmanager
def session(dsn: str) -> Iterator[connection]:
    """A session of the test's own."""
    opened = psycopg2.connect(dsn)
    try:
        yield opened
    finally:
        opened.close()


def execute(dsn: str, statement: str) -> None:
    with session(dsn) as own:
        own.autocommit = True
        own.cursor().execute(statement)


@pytest.mark.parametrize("pause_limit", [60, 1])
def test_a_restart_is_waited_for(
    small_stack: Stack,
    postgres_cluster: PostgreSqlCluster,
    rabbitmq_node: RabbitMqNode,
    broker_url: str,
    storage_config: StorageConfig,
    checker: Checker,
    pause_limit: float,
) -> None:
    def served_count() -> int:
        return sum(queue.startswith("content_add") for queue in consumers(rabbitmq_node, broker_url))

    # One process: another one would not notice before it has something to write.
    small_stack.start_workers(pause_limit=pause_limit, processes=1)
    small_stack.start_gateway(listen=small_stack.address)
    with under_load(small_stack, checker, storage_config) as stub:
        postgres_cluster.stop("immediate")
        try:
            assert_unavailable(small_stack, stub)
            eventually(lambda: served_count() == (4 if pause_limit > NOTICED_S else 0), "ranges are given up or not")
        finally:
            postgres_cluster.start()
    assert line_count(small_stack.workers[0]) < 100


@pytest.mark.long
def test_nothing_spins_while_the_database_is_away(
    small_stack: Stack, postgres_cluster: PostgreSqlCluster, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start()
    with under_load(small_stack, checker, storage_config) as stub:
        postgres_cluster.stop("immediate")
        try:
            assert_unavailable(small_stack, stub)
            assert_idle(small_stack, 15.0)
        finally:
            postgres_cluster.start()


def test_more_connections_than_the_server_has_are_waited_for(
    small_stack: Stack,
    postgres_cluster: PostgreSqlCluster,
    database_dsn: str,
    storage_config: StorageConfig,
    checker: Checker,
) -> None:
    small_stack.start()
    with (
        under_load(small_stack, checker, storage_config) as stub,
        no_connection_left(postgres_cluster.dsn(), database_dsn),
    ):
        assert_unavailable(small_stack, stub)
        wait_for_trouble(small_stack, "too many clients")
        assert_idle(small_stack, 5.0)


@contextmanager
def no_connection_left(server_dsn: str, database_dsn: str) -> Iterator[None]:
    """Uses up the connections of a server, those to a database too."""
    database = database_dsn.rpartition("/")[2]
    taken: list[connection] = []
    try:
        with session(server_dsn) as own:
            own.autocommit = True
            cursor = own.cursor()
            deadline = time.monotonic() + NOTICED_S
            while True:
                take_all_connections(server_dsn, taken)
                cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
                if not cursor.rowcount:
                    break
                assert time.monotonic() < deadline, "the programs keep their connections"
            yield
    finally:
        for each in taken:
            each.close()


def take_all_connections(dsn: str, taken: list[connection]) -> None:
    def take_on() -> None:
        while True:
            taken.append(psycopg2.connect(dsn))

    with pytest.raises(psycopg2.OperationalError, match="too many clients"):
        take_on()


def test_a_deadlock_is_tried_again(
    small_stack: Stack, database_dsn: str, storage_config: StorageConfig, checker: Checker
) -> None:
    # Whoever waits for this long looks for a deadlock, and is its victim: the worker.
    execute(database_dsn, f"ALTER DATABASE {database_dsn.rpartition('/')[2]} SET deadlock_timeout = '3s'")
    small_stack.start()
    first, second = b"\x01" * 20, b"\x02" * 20
    dates = {first: datetime(2020, 1, 1, tzinfo=UTC), second: datetime(2020, 1, 1, tzinfo=UTC)}
    with Writing(small_stack.address, checker) as writing, session(database_dsn) as other:
        assert writing.begin("content_add", [first, second]).result(RECOVERED_S)
        cursor = other.cursor()
        cursor.execute("SET deadlock_timeout = '60s'")
        lock = "SELECT FROM content WHERE id = %s FOR UPDATE"
        cursor.execute(lock, (second,))
        # It locks rows in the order of their ids.
        begun = writing.begin("content_add", dates)
        eventually(lambda: workers_wait_for_a_lock(database_dsn), "the worker has one row and waits for the other")
        cursor.execute(lock, (first,))
        other.rollback()
        assert begun.result(RECOVERED_S)
    eventually(lambda: deadlock_count(database_dsn) == 1, "there was a deadlock")
    check(checker, storage_config)


def workers_wait_for_a_lock(dsn: str) -> bool:
    statement = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with session(dsn) as own, own.cursor() as cursor:
        cursor.execute(statement)
        return bool(cursor.rowcount)


def deadlock_count(dsn: str) -> int:
    with session(dsn) as own, own.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        ((count,),) = cursor.fetchall()
        return int(count)


def test_serialization_failures_are_tried_again(
    small_stack: Stack, database_dsn: str, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start()
    with under_load(small_stack, checker, storage_config):
        # More than are tried again at once. A sequence is not rolled back.
        execute(
            database_dsn,
            """CREATE SEQUENCE tries;
            CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('tries') <= 30 THEN RAISE EXCEPTION 'a conflict' USING ERRCODE = 'serialization_failure';
                END IF; RETURN NULL; END $$;
            CREATE TRIGGER conflict BEFORE INSERT ON content FOR EACH STATEMENT EXECUTE FUNCTION conflict()""",
        )
        wait_for_trouble(small_stack, "a conflict")


def test_a_lock_that_is_not_granted_is_waited_for(
    small_stack: Stack, database_dsn: str, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start_workers(storage_config=postgresql_storage(database_dsn, lock_timeout_s=0.5))
    small_stack.start_gateway(listen=small_stack.address)
    with under_load(small_stack, checker, storage_config) as stub, session(database_dsn) as other:
        other.cursor().execute("LOCK TABLE content IN EXCLUSIVE MODE")
        wait_for_trouble(small_stack, "lock timeout")
        assert all(outcome.ok for outcome in reads(stub))
        assert_idle(small_stack, 3.0)
        other.rollback()


def test_a_full_disk_is_waited_for(
    broker_url: str, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory, checker: Checker
) -> None:
    name = f"faults_{secrets.token_hex(4)}"
    with SmallDisk(stack_directory.outside_directory(), postgres_cluster, name) as disk:
        storage_config = postgresql_storage(disk.dsn)
        stack = Stack(broker_url, storage_config, stack_directory, {"rabbitmq": {"ranges": FEW_RANGES}}, name)
        try:
            stack.start()
            with under_load(stack, checker, storage_config) as stub:
                disk.fill()
                wait_for_trouble(stack, "No space left on device")
                assert all(outcome.ok for outcome in reads(stub))
                assert_idle(stack, 5.0)
                disk.make_room()
        finally:
            stack.kill()
