"""What the PostgreSQL storage does beyond the contract: schema, concurrency, lost connections, streams, plans."""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final

import psycopg2
import pytest
from psycopg2.extensions import connection, make_dsn

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_storage.errors import (
    DataRefusedError,
    SchemaMismatchError,
    StorageConflictError,
    StorageForbiddenError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from provgate_storage.model import EntityType, RelationType, RevisionData
from provgate_storage.postgresql import ProvenanceStoragePostgreSql
from provgate_storage.postgresql.connections import connect, read_session
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.reads import PostgreSqlReads, PostgreSqlStream
from provgate_storage.postgresql.schema import definitions
from provgate_storage.postgresql.settings import parse_settings
from provgate_storage.postgresql.writes import INSERT_MAX_ROW_COUNT, PIECE_ROW_COUNT
from provgate_storage.rows.values import to_microseconds
from tests.integration.local_storage import (
    CONTENT,
    RANGES,
    LocalStorageContract,
    NewStorage,
    everything,
    fill_occurrences,
)
from tests.support.entries import entry_id
from tests.support.examples import DAY, row, state_of
from tests.support.polling import eventually
from tests.support.reference import InMemoryProvenanceStorage

MANY: Final = INSERT_MAX_ROW_COUNT + 100  # enough for COPY


@pytest.fixture
def storage(postgres_dsn: str) -> Iterator[ProvenanceStoragePostgreSql]:
    with opened(postgres_dsn) as storage:
        yield storage


@pytest.fixture
def admin(postgres_dsn: str) -> Iterator[connection]:
    """A connection of the test's own, in autocommit mode."""
    with closing(psycopg2.connect(postgres_dsn)) as made:
        made.autocommit = True
        yield made


@contextmanager
def opened(dsn: str, **settings: Any) -> Iterator[ProvenanceStoragePostgreSql]:
    with ProvenanceStoragePostgreSql(db=dsn, **settings) as storage:
        storage.setup(RANGES)
        yield storage


def rows_of(admin: connection, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with admin.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def states(admin: connection, use: str) -> list[str]:
    """Returns the states of the storage's connections of a use."""
    statement = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
    return [state for (state,) in rows_of(admin, statement, f"provgate {use}%")]


def terminate(admin: connection) -> None:
    """Ends the storage's connections."""
    rows_of(
        admin,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'provgate %'",
    )


class TestLocalStorage(LocalStorageContract):
    @pytest.fixture
    def new_storage(self, postgres_dsn: str) -> NewStorage:
        return partial(ProvenanceStoragePostgreSql, db=postgres_dsn)


class TestSchema:
    def test_setup_again_changes_nothing_and_does_not_wait_for_writers(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, postgres_dsn: str
    ) -> None:
        before = rows_of(admin, "SELECT xmin::text, * FROM exchange_range ORDER BY exchange")
        with closing(psycopg2.connect(postgres_dsn)) as writer, writer.cursor() as cursor:
            cursor.execute("INSERT INTO content VALUES ('x')")
            storage.setup(RANGES)
        assert rows_of(admin, "SELECT xmin::text, * FROM exchange_range ORDER BY exchange") == before

    def test_setup_restores_what_is_missing(self, storage: ProvenanceStoragePostgreSql, admin: connection) -> None:
        rows_of(admin, "DROP INDEX content_in_directory_dst")
        with pytest.raises(SchemaMismatchError, match="lacks content_in_directory_dst: run `provgate-workers setup`"):
            storage.check(RANGES)
        storage.setup(RANGES)
        storage.check(RANGES)

    def test_several_set_ups_build_an_index_that_takes_longer_than_a_write_may(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, postgres_dsn: str
    ) -> None:
        made = "substr(sha256(n::text::bytea), 1, 20)"
        rows_of(admin, f"INSERT INTO revision_in_origin SELECT {made}, {made} FROM generate_series(1, 100000) n")
        rows_of(admin, "DROP INDEX revision_in_origin_dst")

        def set_up(_: int) -> None:
            with opened(postgres_dsn, write_timeout_s=0.02, lock_timeout_s=0.02) as own:
                own.check(RANGES)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(set_up, range(3)))

    @pytest.mark.parametrize(
        ("statement", "message"),
        [
            ("UPDATE schema_version SET version = 2", "version 2 of the schema, newer than version 1"),
            ("UPDATE schema_version SET version = 0", r"no known version of the schema \(\[0\]\)"),
            ("DELETE FROM schema_version", r"no known version of the schema \(\[\]\)"),
        ],
    )
    def test_another_version_is_refused(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, statement: str, message: str
    ) -> None:
        rows_of(admin, statement)
        with pytest.raises(SchemaMismatchError, match=message):
            storage.check(None)
        with pytest.raises(SchemaMismatchError, match=message):
            storage.setup(RANGES)

    def test_the_tables_of_another_program_are_left_alone(self, postgres_dsn: str, admin: connection) -> None:
        rows_of(admin, "CREATE TABLE content (sha1 bytea)")
        expected = pytest.raises(SchemaMismatchError, match=r"tables that are not provgate's \(content\)")
        with ProvenanceStoragePostgreSql(db=postgres_dsn) as storage, expected:
            storage.setup(RANGES)
        assert rows_of(admin, "SELECT to_regclass('revision')::text") == [(None,)]

    def test_reading_takes_select_rights_alone(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, postgres_dsn: str
    ) -> None:
        fill_occurrences(storage, 10)
        role, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
        rows_of(admin, f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        try:
            rows_of(admin, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
            with ProvenanceStoragePostgreSql(db=make_dsn(postgres_dsn, user=role, password=password)) as reader:
                reader.check(RANGES)
                assert reader.recorded_range_counts() == RANGES
                assert state_of(reader) == state_of(storage)
                with pytest.raises(StorageForbiddenError, match="permission denied"):
                    reader.content_add([entry_id(1)])
        finally:
            rows_of(admin, f"DROP OWNED BY {role}")
            rows_of(admin, f"DROP ROLE {role}")


def test_a_server_that_may_lose_acked_rows_is_reported(stack_directory: StackDirectory) -> None:
    names = ["fsync", "full_page_writes", "synchronous_commit"]
    cluster = PostgreSqlCluster(stack_directory, "unsafe")
    try:
        cluster.start()
        with closing(psycopg2.connect(cluster.dsn())) as made:
            made.autocommit = True
            for name in names:
                rows_of(made, f"ALTER SYSTEM SET {name} = off")
        cluster.restart()
        with ProvenanceStoragePostgreSql(db=cluster.dsn()) as storage:
            dangers = storage.inspect().dangers
    finally:
        cluster.kill()
    assert [(danger.setting, danger.value) for danger in dangers] == [(name, "off") for name in names]
    assert all(f"ALTER SYSTEM RESET {danger.setting}" in danger.remedy for danger in dangers)


def test_a_connection_string_that_gives_up_durability_is_reported(postgres_dsn: str) -> None:
    with ProvenanceStoragePostgreSql(db=make_dsn(postgres_dsn, options="-c synchronous_commit=off")) as storage:
        assert [danger.setting for danger in storage.inspect().dangers] == ["synchronous_commit"]


class TestWrites:
    @pytest.mark.parametrize("count", [10, MANY])
    def test_writers_of_the_same_rows_end_as_one_would(self, postgres_dsn: str, count: int) -> None:
        reference = InMemoryProvenanceStorage()

        def hammer(seed: int) -> None:
            chance = random.Random(seed)
            with opened(postgres_dsn) as own:
                for _ in range(3):
                    numbers = chance.sample(range(count * 2), count)
                    dates = {entry_id(number): DAY + timedelta(days=chance.randrange(100)) for number in numbers}
                    revisions = {revision: RevisionData(date, entry_id(1)) for revision, date in dates.items()}
                    rows = {entry_id(number): {row(number % 7, b"%d" % chance.randrange(3))} for number in numbers}
                    for target in (own, reference):
                        target.content_add(dates)
                        target.revision_add(revisions)
                        target.location_add([b"%d" % number for number in numbers])
                        target.relation_add(RelationType.CNT_IN_DIR, rows)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(hammer, range(4)))
        relation = RelationType.CNT_IN_DIR
        contents = reference.entity_get_all(EntityType.CONTENT)
        revisions = reference.entity_get_all(EntityType.REVISION)
        with opened(postgres_dsn) as storage:
            assert storage.relation_get_all(relation) == reference.relation_get_all(relation)
            assert storage.location_get_all() == reference.location_get_all()
            assert storage.content_get(contents) == reference.content_get(contents)
            assert storage.revision_get(revisions) == reference.revision_get(revisions)

    @pytest.mark.parametrize("count", [10, MANY])
    def test_writes_that_change_nothing_write_nothing(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, count: int
    ) -> None:
        ids = [entry_id(number) for number in range(count)]

        def write(later_days: int) -> None:
            date = DAY + timedelta(days=later_days)
            storage.content_add(dict.fromkeys(ids, date))
            storage.revision_add(dict.fromkeys(ids, RevisionData(date, entry_id(1))))
            storage.origin_add(dict.fromkeys(ids, f"{later_days}"))
            storage.location_add([b"%d" % number for number in range(count)])
            for relation in RelationType:
                storage.relation_add(relation, {src: {row(1, b"a" if relation.has_path else None)} for src in ids})

        def versions() -> list[Any]:
            tables = ["content", "revision", "origin", "location", *RelationType]
            return [rows_of(admin, f"SELECT xmin::text, ctid::text FROM {table} ORDER BY 2") for table in tables]

        write(0)
        before = versions()
        write(0)
        write(1)
        assert versions() == before

    def test_no_write_touches_the_table_of_another_entity(
        self, storage: ProvenanceStoragePostgreSql, admin: connection
    ) -> None:
        for relation in RelationType:
            storage.relation_add(relation, {entry_id(1): {row(2, b"a" if relation.has_path else None)}})
        storage.revision_add({entry_id(1): RevisionData(DAY, entry_id(2))})
        for table, count in [("content", 0), ("directory", 0), ("origin", 0), ("location", 0), ("revision", 1)]:
            assert rows_of(admin, f"SELECT count(*) FROM {table}") == [(count,)]

    def test_a_call_is_one_transaction_however_large(
        self, storage: ProvenanceStoragePostgreSql, admin: connection
    ) -> None:
        last = b"\xff" * 20
        rows_of(admin, r"ALTER TABLE content ADD CHECK (id <> '\x" + last.hex() + "')")
        contents = [entry_id(number) for number in range(2 * PIECE_ROW_COUNT)]
        with pytest.raises(DataRefusedError):
            storage.content_add([*contents, last])
        assert rows_of(admin, "SELECT count(*) FROM content") == [(0,)]
        assert storage.content_add(contents) is True
        assert rows_of(admin, "SELECT count(*) FROM content") == [(len(contents),)]

    def test_long_paths_are_told_apart_by_all_their_bytes(self, storage: ProvenanceStoragePostgreSql) -> None:
        paths = [b"x" * 4000 + b"%d" % number for number in range(20)]
        paths += [hashlib.sha256(path).digest() for path in paths]
        kept = {path for path in paths if b"\0" not in path}
        storage.location_add(kept)
        storage.relation_add(RelationType.DIR_IN_REV, {entry_id(1): {row(2, path) for path in kept}})
        assert storage.location_get_all() == kept
        assert storage.relation_get_all(RelationType.DIR_IN_REV) == {entry_id(1): {row(2, path) for path in kept}}

    @pytest.mark.parametrize(
        ("settings", "statement", "error"),
        [
            ({"lock_timeout_s": 0.05}, "SELECT FROM content FOR UPDATE", StorageConflictError),
            ({"write_timeout_s": 0.5, "lock_timeout_s": 10}, "LOCK TABLE content", StorageTimeoutError),
        ],
    )
    def test_a_write_that_waits_too_long_is_retryable(
        self, postgres_dsn: str, settings: dict[str, Any], statement: str, error: type[Exception]
    ) -> None:
        with opened(postgres_dsn, **settings) as storage:
            storage.content_add([entry_id(1)])
            with closing(psycopg2.connect(postgres_dsn)) as other, other.cursor() as cursor:
                cursor.execute(statement)
                with pytest.raises(error):
                    storage.content_add({entry_id(1): DAY})
            assert storage.content_add({entry_id(1): DAY}) is True


class TestConnections:
    def test_a_server_that_ended_idle_connections_costs_no_call(
        self, storage: ProvenanceStoragePostgreSql, admin: connection
    ) -> None:
        storage.content_add({entry_id(1): DAY})
        storage.content_get([entry_id(1)])
        terminate(admin)
        assert storage.content_add({entry_id(2): DAY}) is True
        assert storage.content_get([entry_id(1), entry_id(2)]).keys() == {entry_id(1), entry_id(2)}

    def test_a_connection_that_is_lost_in_a_call_is_replaced(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, postgres_dsn: str
    ) -> None:
        storage.content_add([entry_id(1)])
        with closing(psycopg2.connect(postgres_dsn)) as other, other.cursor() as cursor:
            cursor.execute("SELECT FROM content FOR UPDATE")
            with ThreadPoolExecutor(1) as threads:
                blocked = threads.submit(storage.content_add, {entry_id(1): DAY})
                eventually(lambda: "active" in states(admin, "write"), "the write waits for the lock")
                terminate(admin)
                with pytest.raises(StorageUnavailableError):
                    blocked.result()
        storage.probe()
        assert storage.content_add({entry_id(1): DAY}) is True

    def test_an_unreachable_server_is_unavailable(self) -> None:
        nowhere = ProvenanceStoragePostgreSql(db="host=127.0.0.1 port=1 user=nobody password=hunter2")
        with pytest.raises(StorageUnavailableError) as caught:
            nowhere.open()
        assert "hunter2" not in str(caught.value)

    def test_connections_are_bounded_and_closed(self, postgres_dsn: str, admin: connection) -> None:
        with opened(postgres_dsn, write_connections=2, read_connections=2) as storage:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda number: storage.content_add([entry_id(number)]), range(40)))
                list(threads.map(lambda number: storage.content_get([entry_id(number)]), range(40)))
            assert len(states(admin, "write")) <= 2
            assert len(states(admin, "read")) <= 2
        eventually(lambda: not states(admin, ""), "all connections are closed")

    def test_the_session_does_not_depend_on_the_database(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, postgres_dsn: str
    ) -> None:
        name = rows_of(admin, "SELECT current_database()")[0][0]
        for setting in ("TimeZone = 'Asia/Kolkata'", "DateStyle = 'German'", "bytea_output = 'escape'"):
            rows_of(admin, f"ALTER DATABASE {name} SET {setting}")
        rows_of(admin, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
        with ProvenanceStoragePostgreSql(db=postgres_dsn) as other:
            other.content_add({entry_id(1): DAY})
            other.content_add({entry_id(number): DAY for number in range(MANY)})
            assert other.content_get([entry_id(1)]) == {entry_id(1): DAY}


class TestStreams:
    def test_chunks_are_of_one_snapshot(self, postgres_dsn: str) -> None:
        with opened(postgres_dsn, stream_chunk_row_count=100) as storage:
            contents = {entry_id(number): DAY for number in range(2_050)}  # three queries of ids
            storage.content_add(contents)
            found: dict[bytes, Any] = {}
            with storage.content_get_stream([*contents, *contents]) as stream:
                for chunk in stream:
                    assert 0 < len(chunk) <= 100
                    assert not found.keys() & dict(chunk).keys()
                    found |= dict(chunk)
                    storage.content_add(dict.fromkeys(contents, DAY - timedelta(days=1)))
            assert found == dict.fromkeys(contents, to_microseconds(DAY))

    def test_cancel_ends_the_query(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, postgres_dsn: str
    ) -> None:
        with closing(psycopg2.connect(postgres_dsn)) as other, other.cursor() as cursor:
            cursor.execute("LOCK TABLE content_in_revision")
            stream = storage.content_find_all_stream(CONTENT)
            with ThreadPoolExecutor(1) as threads:
                blocked = threads.submit(everything, stream)
                eventually(lambda: "active" in states(admin, "stream"), "the query waits for the lock")
                stream.cancel()
                with pytest.raises(StorageUnavailableError):
                    blocked.result()
            eventually(lambda: not states(admin, "stream"), "the connection is closed")
        assert everything(storage.content_find_all_stream(CONTENT)) == []

    def test_closing_the_generator_ends_its_transaction(
        self, storage: ProvenanceStoragePostgreSql, admin: connection
    ) -> None:
        fill_occurrences(storage, 3_000)
        results = storage.content_find_all(CONTENT)
        next(results)
        assert states(admin, "stream") == ["idle in transaction"]
        results.close()
        assert states(admin, "stream") == ["idle"]

    def test_a_closed_stream_leaves_the_next_user_of_its_connection_alone(self, postgres_dsn: str) -> None:
        with opened(postgres_dsn, stream_connections=1, stream_chunk_row_count=1_000) as storage:
            fill_occurrences(storage, 3_000)
            left = storage.content_find_all_stream(CONTENT)
            chunks = iter(left)
            next(chunks)
            left.close()
            with storage.content_find_all_stream(CONTENT) as stream:
                others = iter(stream)
                next(others)
                del chunks
                left.cancel()
                assert sum(map(len, others)) == 2_000

    def test_the_server_ends_a_stream_that_is_not_read(self, postgres_dsn: str, admin: connection) -> None:
        with opened(postgres_dsn, stream_idle_timeout_s=0.3) as storage:
            fill_occurrences(storage, 3_000)
            chunks = iter(storage.content_find_all_stream(CONTENT))
            next(chunks)
            eventually(lambda: "idle in transaction" not in states(admin, "stream"), "the server ends the stream", 30)
            with pytest.raises(StorageUnavailableError):
                next(chunks)
            assert len(list(storage.content_find_all(CONTENT))) == 3_000

    def test_more_threads_than_connections_read_one_after_another(self, postgres_dsn: str) -> None:
        with opened(postgres_dsn, stream_connections=3, stream_wait_s=30) as storage:
            fill_occurrences(storage, 2_500)
            with ThreadPoolExecutor(6) as threads:
                counts = list(threads.map(lambda _: len(list(storage.content_find_all(CONTENT))), range(6)))
            assert counts == [2_500] * 6


FILL: Final = """
    INSERT INTO content SELECT sha256(n::text::bytea), now() FROM generate_series(1, 20000) n;
    INSERT INTO revision SELECT sha256(n::text::bytea), now() FROM generate_series(1, 20000) n;
    INSERT INTO content_in_revision
        SELECT sha256((n / 10)::text::bytea), sha256(n::text::bytea), 'p' FROM generate_series(1, 20000) n;
    INSERT INTO content_in_directory
        SELECT sha256((n / 10)::text::bytea), sha256((n % 2000)::text::bytea), 'p' FROM generate_series(1, 20000) n;
    INSERT INTO directory_in_revision
        SELECT sha256((n / 10)::text::bytea), sha256(n::text::bytea), 'p' FROM generate_series(1, 20000) n;
"""


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "never analyzed"])
def test_large_tables_are_read_by_their_indexes(postgres_dsn: str, admin: connection, analyzed: bool) -> None:
    """With statistics and, as after a first load, without."""
    with opened(postgres_dsn):
        for name, statement in definitions().items():
            if "src" in statement and statement.startswith("CREATE TABLE"):
                rows_of(admin, f"ALTER TABLE {name} SET (autovacuum_enabled = off)")
        rows_of(admin, FILL)
        if analyzed:
            rows_of(admin, "ANALYZE")
    session = partial(connect, read_session(parse_settings({"db": postgres_dsn})))
    reads = PostgreSqlReads(ConnectionPool(session, 1, 1), 1_000)
    ids = [entry_id(number) for number in range(100)]
    by_id: list[tuple[PostgreSqlStream[Any], str]] = [
        (reads.relations(RelationType.CNT_IN_DIR, ids, reverse=False), "content_in_directory_key"),
        (reads.relations(RelationType.CNT_IN_DIR, ids, reverse=True), "content_in_directory_dst"),
        (reads.dates(EntityType.CONTENT, ids), "content_pkey"),
        (reads.revisions(ids), "revision_pkey"),
    ]
    with closing(session()) as made, made.cursor() as cursor:
        for stream, index in by_id:
            plan = plan_of(cursor, stream)
            assert index in plan
            assert "Seq Scan" not in plan
        for occurrences in (reads.first_occurrence(CONTENT), reads.all_occurrences(CONTENT, 10)):
            plan = plan_of(cursor, occurrences)
            # Whatever the planner does with the empty table of origins.
            for table in ("content_in_revision", "content_in_directory", "directory_in_revision", "revision"):
                assert f"Seq Scan on {table} " not in plan


def plan_of(cursor: Any, stream: PostgreSqlStream[Any]) -> str:
    (query,) = stream.queries
    cursor.execute(f"EXPLAIN {query.text}", query.parameters)
    return "\n".join(line for (line,) in cursor.fetchall())
