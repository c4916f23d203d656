"""What the PostgreSQL storage does beyond the contract: schema, concurrency, streams, lost connections."""

from __future__ import annotations

import hashlib
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any, Final

import psycopg2
import pytest
from psycopg2.extensions import connection, make_dsn

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_storage.errors import (
    DataRefusedError,
    SchemaMismatchError,
    StorageBusyError,
    StorageConflictError,
    StorageForbiddenError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from provgate_storage.model import EntityType, RelationData, RelationType, RevisionData
from provgate_storage.postgresql import ProvenanceStoragePostgreSql, queries
from provgate_storage.postgresql.connections import connect, read_session
from provgate_storage.postgresql.queries import Query
from provgate_storage.postgresql.schema import definitions
from provgate_storage.postgresql.settings import parse_settings
from provgate_storage.postgresql.writes import INSERT_MAX_ROW_COUNT, PIECE_ROW_COUNT
from provgate_storage.rows.values import to_date, to_microseconds
from tests.contract.examples import DAY, entry_id, row
from tests.contract.local import RANGES, LocalStorageContract, NewStorage
from tests.contract.reference import InMemoryProvenanceStorage
from tests.contract.writes import state_of

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


def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def fill_occurrences(storage: ProvenanceStoragePostgreSql, count: int) -> None:
    storage.revision_add({entry_id(5): RevisionData(DAY, None)})
    rows = {row(5, b"%06d" % number) for number in range(count)}
    storage.relation_add(RelationType.CNT_EARLY_IN_REV, {entry_id(1): rows})


class TestLocalStorage(LocalStorageContract):
    @pytest.fixture
    def new_storage(self, postgres_dsn: str) -> NewStorage:
        # The type checker compares the signatures, the test the names.
        return lambda: ProvenanceStoragePostgreSql(db=postgres_dsn)


class TestSchema:
    def test_setup_again_changes_nothing_and_keeps_the_rows(
        self, storage: ProvenanceStoragePostgreSql, admin: connection
    ) -> None:
        storage.location_add([b"kept"])
        before = rows_of(admin, "SELECT xmin::text, * FROM exchange_range ORDER BY exchange")
        storage.setup(RANGES)
        assert rows_of(admin, "SELECT xmin::text, * FROM exchange_range ORDER BY exchange") == before
        assert storage.location_get_all() == {b"kept"}

    def test_setup_does_not_wait_for_writers(self, storage: ProvenanceStoragePostgreSql, postgres_dsn: str) -> None:
        with closing(psycopg2.connect(postgres_dsn)) as writer, writer.cursor() as cursor:
            cursor.execute("INSERT INTO content VALUES ('x')")
            storage.setup(RANGES)

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
        rows_of(admin, f"INSERT INTO revision_in_origin SELECT {made}, {made} FROM generate_series(1, 300000) n")
        rows_of(admin, "DROP INDEX revision_in_origin_dst")

        def set_up(_: int) -> None:
            limits = {"write_timeout_s": 0.02, "lock_timeout_s": 0.02}
            with ProvenanceStoragePostgreSql(db=postgres_dsn, **limits) as own:
                own.setup(RANGES)
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

    def test_the_tables_of_somebody_else_are_left_alone(self, postgres_dsn: str, admin: connection) -> None:
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


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_may_lose_what_was_acked_says_so(stack_directory: StackDirectory, setting: str) -> None:
    cluster = PostgreSqlCluster(stack_directory, f"unsafe-{setting}")
    try:
        cluster.start()
        with closing(psycopg2.connect(cluster.dsn())) as made:
            made.autocommit = True
            rows_of(made, f"ALTER SYSTEM SET {setting} = off")
        cluster.restart()
        with ProvenanceStoragePostgreSql(db=cluster.dsn()) as storage:
            (danger,) = storage.inspect().dangers
    finally:
        cluster.kill()
    assert (danger.setting, danger.value) == (setting, "off")
    assert f"ALTER SYSTEM RESET {setting}" in danger.remedy


def test_a_connection_string_that_gives_up_durability_is_seen(postgres_dsn: str) -> None:
    with ProvenanceStoragePostgreSql(db=make_dsn(postgres_dsn, options="-c synchronous_commit=off")) as storage:
        assert [danger.setting for danger in storage.inspect().dangers] == ["synchronous_commit"]


class TestWrites:
    @pytest.mark.parametrize("count", [10, MANY])
    def test_two_writers_of_the_same_rows_end_as_one_would(self, postgres_dsn: str, count: int) -> None:
        reference = InMemoryProvenanceStorage()

        def hammer(seed: int) -> None:
            chance = random.Random(seed)
            with opened(postgres_dsn) as own:
                for _ in range(6):
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
        with opened(postgres_dsn) as storage:
            assert storage.relation_get_all(RelationType.CNT_IN_DIR) == reference.relation_get_all(
                RelationType.CNT_IN_DIR
            )
            assert storage.location_get_all() == reference.location_get_all()
            contents, revisions = (
                reference.entity_get_all(EntityType.CONTENT),
                reference.entity_get_all(EntityType.REVISION),
            )
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

    def test_a_lock_that_is_not_granted_is_a_conflict(self, postgres_dsn: str) -> None:
        with opened(postgres_dsn, lock_timeout_s=0.05) as storage:
            storage.content_add([entry_id(1)])
            with closing(psycopg2.connect(postgres_dsn)) as other, other.cursor() as cursor:
                cursor.execute("SELECT FROM content FOR UPDATE")
                with pytest.raises(StorageConflictError):
                    storage.content_add({entry_id(1): DAY})
                other.rollback()
            assert storage.content_add({entry_id(1): DAY}) is True

    def test_a_statement_that_takes_too_long_is_retryable(self, postgres_dsn: str) -> None:
        with opened(postgres_dsn, write_timeout_s=0.5, lock_timeout_s=10) as storage:
            with closing(psycopg2.connect(postgres_dsn)) as other, other.cursor() as cursor:
                cursor.execute("LOCK TABLE location")
                with pytest.raises(StorageTimeoutError, match="statement timeout"):
                    storage.location_add([b"a"])
            assert storage.location_add([b"a"]) is True


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
                eventually(lambda: bool(active(admin, "write")))
                terminate(admin)
                with pytest.raises(StorageUnavailableError):
                    blocked.result()
        storage.probe()
        assert storage.content_add({entry_id(1): DAY}) is True

    def test_a_server_that_is_not_there_is_unavailable(self, postgres_dsn: str) -> None:
        nowhere = ProvenanceStoragePostgreSql(db="host=127.0.0.1 port=1 user=nobody password=hunter2")
        with pytest.raises(StorageUnavailableError) as caught:
            nowhere.open()
        assert "hunter2" not in str(caught.value)
        closed = ProvenanceStoragePostgreSql(db=postgres_dsn)
        for call in (closed.probe, lambda: closed.content_add([]), lambda: closed.content_get([])):
            with pytest.raises(StorageUnavailableError, match="not open"):
                call()

    def test_connections_are_bounded_and_closed(self, postgres_dsn: str, admin: connection) -> None:
        with opened(postgres_dsn, write_connections=2, read_connections=2) as storage:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda number: storage.content_add([entry_id(number)]), range(40)))
                list(threads.map(lambda number: storage.content_get([entry_id(number)]), range(40)))
            assert len(connections(admin, "write")) <= 2
            assert len(connections(admin, "read")) <= 2
        eventually(lambda: not connections(admin, ""))

    def test_the_session_is_ours_whatever_the_database_says(
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

    def test_streams_and_plain_reads_tell_the_same(self, storage: ProvenanceStoragePostgreSql) -> None:
        fill_occurrences(storage, 2_500)
        storage.directory_add({entry_id(1): DAY})
        storage.origin_add({entry_id(1): "url"})
        relation, ids = RelationType.CNT_EARLY_IN_REV, [entry_id(1), entry_id(5)]
        dates = {entry_id: to_date(date) for entry_id, date in everything(storage.directory_get_stream(ids))}
        assert dates == storage.directory_get(ids) != {}
        assert dict(everything(storage.revision_get_stream(ids))) == storage.revision_get(ids) != {}
        assert dict(everything(storage.origin_get_stream(ids))) == storage.origin_get(ids) != {}
        rows = [(entry_id(1), found) for found in storage.relation_get_all(relation)[entry_id(1)]]
        for stream in (
            storage.relation_get_stream(relation, ids),
            storage.relation_get_stream(relation, ids, reverse=True),
            storage.relation_get_all_stream(relation),
        ):
            assert sorted(everything(stream), key=_path_of) == sorted(rows, key=_path_of)
        assert set(everything(storage.entity_get_all_stream(EntityType.REVISION))) == {entry_id(5)}
        assert sorted(everything(storage.location_get_all_stream())) == sorted(storage.location_get_all())
        found = everything(storage.content_find_all_stream(entry_id(1), 2_000))
        assert found == list(storage.content_find_all(entry_id(1)))[:2_000]

    def test_cancel_ends_the_query(
        self, storage: ProvenanceStoragePostgreSql, admin: connection, postgres_dsn: str
    ) -> None:
        with closing(psycopg2.connect(postgres_dsn)) as other, other.cursor() as cursor:
            cursor.execute("LOCK TABLE content_in_revision")
            stream = storage.content_find_all_stream(entry_id(1))
            with ThreadPoolExecutor(1) as threads:
                blocked = threads.submit(everything, stream)
                eventually(lambda: bool(active(admin, "stream")))
                stream.cancel()
                with pytest.raises(StorageUnavailableError):
                    blocked.result()
            eventually(lambda: not connections(admin, "stream"))
        assert everything(storage.content_find_all_stream(entry_id(1))) == []

    def test_cancel_before_and_between_chunks(self, storage: ProvenanceStoragePostgreSql) -> None:
        fill_occurrences(storage, 3_000)
        early = storage.content_find_all_stream(entry_id(1))
        early.cancel()
        with pytest.raises(StorageUnavailableError, match="cancelled"):
            everything(early)
        stream = storage.content_find_all_stream(entry_id(1))
        chunks = iter(stream)
        next(chunks)
        stream.cancel()
        with pytest.raises(StorageUnavailableError, match="cancelled"):
            next(chunks)
        stream.cancel()
        stream.close()

    def test_closing_the_generator_ends_its_transaction(
        self, storage: ProvenanceStoragePostgreSql, admin: connection
    ) -> None:
        fill_occurrences(storage, 3_000)
        results = storage.content_find_all(entry_id(1))
        next(results)
        assert [state for (state,) in connections(admin, "stream")] == ["idle in transaction"]
        results.close()
        assert [state for (state,) in connections(admin, "stream")] == ["idle"]

    def test_a_closed_stream_leaves_the_next_user_of_its_connection_alone(self, postgres_dsn: str) -> None:
        with opened(postgres_dsn, stream_connections=1, stream_chunk_row_count=1_000) as storage:
            fill_occurrences(storage, 3_000)
            left = storage.content_find_all_stream(entry_id(1))
            chunks = iter(left)
            next(chunks)
            left.close()
            with storage.content_find_all_stream(entry_id(1)) as stream:
                others = iter(stream)
                next(others)
                del chunks
                left.cancel()
                assert sum(map(len, others)) == 2_000

    def test_too_many_streams_are_refused_and_reads_by_id_go_on(self, postgres_dsn: str) -> None:
        with opened(postgres_dsn, stream_connections=2, stream_wait_s=0.05) as storage:
            fill_occurrences(storage, 3_000)
            streams = [storage.content_find_all(entry_id(1)) for _ in range(2)]
            for stream in streams:
                next(stream)
            with pytest.raises(StorageBusyError, match="the limit is 2"):
                storage.relation_get_all(RelationType.CNT_EARLY_IN_REV)
            assert storage.content_find_first(entry_id(1)) is not None
            assert storage.revision_get([entry_id(5)]) != {}
            streams.pop().close()
            assert storage.relation_get_all(RelationType.CNT_EARLY_IN_REV) != {}
            streams.pop().close()

    def test_a_stream_that_nobody_reads_is_ended_by_the_server(self, postgres_dsn: str, admin: connection) -> None:
        with opened(postgres_dsn, stream_idle_timeout_s=1.0) as storage:
            fill_occurrences(storage, 3_000)
            chunks = iter(storage.content_find_all_stream(entry_id(1)))
            next(chunks)
            idle = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
            assert rows_of(admin, idle)
            eventually(lambda: not rows_of(admin, idle), within_s=30)
            with pytest.raises(StorageUnavailableError):
                next(chunks)
            assert len(list(storage.content_find_all(entry_id(1)))) == 3_000

    def test_threads_that_iterate_at_once_do_not_meet(self, postgres_dsn: str) -> None:
        with opened(postgres_dsn, stream_connections=3, stream_wait_s=30) as storage:
            fill_occurrences(storage, 2_500)
            start = threading.Barrier(6)

            def read(_: int) -> int:
                start.wait()
                return len(list(storage.content_find_all(entry_id(1))))

            with ThreadPoolExecutor(6) as threads:
                assert list(threads.map(read, range(6))) == [2_500] * 6


class TestPlans:
    """Large tables are read by their indexes, with statistics and, as after a first load, without."""

    @pytest.fixture(params=["analyzed", "never analyzed"])
    def plan_of(self, request: pytest.FixtureRequest, postgres_dsn: str, admin: connection) -> Callable[[Query], str]:
        with opened(postgres_dsn):
            for table in definitions():
                if "src" in definitions()[table] and definitions()[table].startswith("CREATE TABLE"):
                    rows_of(admin, f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            rows_of(admin, FILL)
            if request.param == "analyzed":
                rows_of(admin, "ANALYZE")

        def plan(query: Query) -> str:
            with closing(connect(read_session(parse_settings({"db": postgres_dsn})))) as made, made.cursor() as cursor:
                cursor.execute(f"EXPLAIN {query.text}", query.parameters)
                return "\n".join(line for (line,) in cursor.fetchall())

        return plan

    def test_relations_are_found_by_either_end(self, plan_of: Callable[[Query], str]) -> None:
        ids = [entry_id(number) for number in range(100)]
        for reverse, index in [(False, "content_in_directory_key"), (True, "content_in_directory_dst")]:
            (query,) = queries.relations(RelationType.CNT_IN_DIR, ids, reverse)
            assert index in plan_of(query)
            assert "Seq Scan" not in plan_of(query)

    def test_entities_are_found_by_id(self, plan_of: Callable[[Query], str]) -> None:
        ids = [entry_id(number) for number in range(100)]
        for query in (*queries.dates(EntityType.CONTENT, ids), *queries.revisions(ids)):
            assert "Seq Scan" not in plan_of(query)

    def test_occurrences_are_found_by_content(self, plan_of: Callable[[Query], str]) -> None:
        (first,), (everything_found,) = queries.first_occurrence(entry_id(1)), queries.all_occurrences(entry_id(1), 10)
        for plan in (plan_of(first), plan_of(everything_found)):
            for table in ("content_in_revision", "content_in_directory", "directory_in_revision", "revision"):
                assert f"Seq Scan on {table} " not in plan


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


def everything(stream: Any) -> list[Any]:
    with stream:
        return [found for chunk in stream for found in chunk]


def _path_of(pair: tuple[bytes, RelationData]) -> bytes:
    return pair[1].path or b""


def connections(admin: connection, use: str) -> list[tuple[Any, ...]]:
    return rows_of(
        admin,
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s",
        f"provgate {use}%",
    )


def active(admin: connection, use: str) -> list[tuple[Any, ...]]:
    return [found for found in connections(admin, use) if found == ("active",)]


def terminate(admin: connection) -> None:
    rows_of(
        admin,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'provgate %'",
    )
