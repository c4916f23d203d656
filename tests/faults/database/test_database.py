"""PostgreSQL restarts, refuses connections, locks, conflicts and runs out of space, while writes go on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.faults.outages import assert_idle, assert_unavailable, line_count, wait_for_trouble
from tests.faults.postgresql import (
    database_on_small_disk,
    execute,
    fill_disk,
    locked,
    no_connection_left,
    query,
    session,
)
from tests.faults.system import NOTICED_S, RECOVERED_S, System, reads, system_on
from tests.support.polling import eventually

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("pause_limit", [pytest.param(600, marks=pytest.mark.long), 1])
def test_a_restart_is_waited_for(system: System, postgres_cluster: PostgreSqlCluster, pause_limit: float) -> None:
    def served_count() -> int:
        return sum(queue.startswith("content_add") for queue in system.consumers())

    # One process: another one would not notice before it has something to write.
    system.start(pause_limit=pause_limit, processes=1)
    with system.under_load() as stub:
        postgres_cluster.stop("immediate")
        try:
            assert_unavailable(system.stack, stub)
            wait_for_trouble(system.stack, "")
            eventually(
                lambda: served_count() == (4 if pause_limit > NOTICED_S else 0), "ranges are given up or not", NOTICED_S
            )
        finally:
            postgres_cluster.start()
    assert line_count(system.workers) < 100


@pytest.mark.long
def test_nothing_spins_while_the_database_is_away(system: System, postgres_cluster: PostgreSqlCluster) -> None:
    system.start()
    with system.under_load() as stub:
        postgres_cluster.stop("immediate")
        try:
            assert_unavailable(system.stack, stub)
            assert_idle(system.stack, 15.0)
        finally:
            postgres_cluster.start()


@pytest.mark.long
def test_more_connections_than_the_server_has_are_waited_for(
    system: System, postgres_cluster: PostgreSqlCluster
) -> None:
    system.start()
    with system.under_load() as stub, no_connection_left(postgres_cluster.dsn(), system.dsn):
        assert_unavailable(system.stack, stub)
        wait_for_trouble(system.stack, "too many clients")
        assert_idle(system.stack, 5.0)


def test_a_deadlock_is_tried_again(system: System) -> None:
    # The session that waits this long looks for a deadlock, and is its victim: the worker's.
    execute(system.dsn, f"ALTER DATABASE {system.dsn.rpartition('/')[2]} SET deadlock_timeout = '3s'")
    system.start()
    first, second = b"\x01" * 20, b"\x02" * 20
    dates = {first: datetime(2020, 1, 1, tzinfo=UTC), second: datetime(2020, 1, 1, tzinfo=UTC)}
    with system.writing() as writing, session(system.dsn) as other:
        assert writing.begin("content_add", [first, second]).result(RECOVERED_S)
        cursor = other.cursor()
        cursor.execute("SET deadlock_timeout = '60s'")
        lock = "SELECT FROM content WHERE id = %s FOR UPDATE"
        cursor.execute(lock, (second,))
        # It locks rows in the order of their ids.
        begun = writing.begin("content_add", dates)
        eventually(lambda: waits_for_a_lock(system.dsn), "the worker has one row and waits for the other", NOTICED_S)
        cursor.execute(lock, (first,))
        other.rollback()
        assert begun.result(RECOVERED_S)
    statement = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    eventually(lambda: query(system.dsn, statement) == [(1,)], "there was a deadlock", NOTICED_S)
    system.check()


def waits_for_a_lock(dsn: str) -> bool:
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(query(dsn, waiting))


def test_serialization_failures_are_tried_again(system: System) -> None:
    system.start()
    with system.under_load():
        # More than are tried again at once. A sequence is not rolled back.
        execute(
            system.dsn,
            """CREATE SEQUENCE tries;
            CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('tries') <= 30 THEN RAISE EXCEPTION 'a conflict' USING ERRCODE = 'serialization_failure';
                END IF; RETURN NULL; END $$;
            CREATE TRIGGER conflict BEFORE INSERT ON content FOR EACH STATEMENT EXECUTE FUNCTION conflict()""",
        )
        wait_for_trouble(system.stack, "a conflict")


def test_a_lock_that_is_not_granted_is_waited_for(system: System) -> None:
    system.start(storage_config=postgresql_storage(system.dsn, lock_timeout_s=0.5))
    with system.under_load() as stub, locked(system.dsn, "content", mode="EXCLUSIVE"):
        wait_for_trouble(system.stack, "lock timeout")
        assert all(outcome.ok for outcome in reads(stub))
        assert_idle(system.stack, 3.0)


def test_a_full_disk_is_waited_for(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> None:
    with (
        database_on_small_disk(stack_directory.outside_directory(), postgres_cluster) as dsn,
        system_on(rabbitmq_node, postgresql_storage(dsn), stack_directory) as system,
    ):
        system.start()
        with system.under_load() as stub:
            fill_disk(dsn)
            wait_for_trouble(system.stack, "No space left on device")
            assert all(outcome.ok for outcome in reads(stub))
            assert_idle(system.stack, 3.0)
            execute(dsn, "DROP TABLE filler")
