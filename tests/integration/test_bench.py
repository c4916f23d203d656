"""Small runs of the benchmark, and its check of the stored rows."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import psycopg2
import pytest

from bench.databases.database import check_rows
from bench.databases.mongodb import MongoDbDatabase
from bench.databases.postgresql import PostgreSqlDatabase
from bench.limit.pipeline import Pipeline, consumers
from bench.measure.clients import PipelineWriter, StorageWriter, Writer
from bench.measure.rounds import Workload, measure
from bench.subjects import DIRECT, GATEWAY, HABITS, LIMIT, Subjects
from bench.writes import loads
from bench.writes.expected import WrongRowsError, expected_rows
from bench.writes.loads import TABLES, Write
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.stack import Stack
from provgate_storage import EntityType, RelationType
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from provgate_storage.postgresql import ProvenanceStoragePostgreSql

CLONE = Path(__file__).resolve().parent.parent.parent
RANGE_COUNTS = dict.fromkeys(("content", "directory", "location", "origin", "revision"), 16)


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[PostgreSqlDatabase]:
    with ProvenanceStoragePostgreSql(db=postgres_dsn) as storage:
        storage.setup(RANGE_COUNTS)
    with PostgreSqlDatabase(postgres_dsn) as opened:
        yield opened


def one_of_each(source: random.Random, count: int) -> list[Write]:
    writes = [loads.relations(relation, source, count) for relation in RelationType]
    writes += [loads.contents(source, count), loads.directories(source, count), loads.revisions(source, count)]
    return [*writes, loads.locations(source, count), loads.origins(source, count)]


@pytest.mark.parametrize("copies", [True, False], ids=["limit", "habits"])
def test_a_pipeline_stores_its_writes(
    copies: bool, amqp_url: str, database: PostgreSqlDatabase, stack_directory: StackDirectory
) -> None:
    dsn = database.storage_config["db"]
    pipeline = Pipeline(
        f"test-{copies}", amqp_url, dsn, package_entries=50, batch_entries=200, copies=copies, processes=2
    )
    writes = one_of_each(random.Random(1), 1_000)
    contents = next(write for write in writes if write.table == EntityType.CONTENT)
    later = {id: date.replace(year=date.year + 1) for id, date in contents.data.items()}
    directory = stack_directory.subdirectory(pipeline.name)
    with consumers(pipeline, directory), PipelineWriter(pipeline).opened() as write:
        for each in [*writes, Write(EntityType.CONTENT, later, len(later)), *writes]:
            write(each)
    check_rows(database, expected_rows(writes), {})
    assert set(database.counts().values()) == {1_000}


def test_a_missing_row_is_found(database: PostgreSqlDatabase) -> None:
    writes = one_of_each(random.Random(2), 50)
    expected = expected_rows(writes)
    with (
        StorageWriter(database.storage_config).opened() as write,
        closing(psycopg2.connect(database.storage_config["db"])) as connection,
        connection.cursor() as cursor,
    ):
        connection.autocommit = True
        for table in TABLES:
            for each in writes:
                write(each)
            check_rows(database, expected, {})
            cursor.execute(f"DELETE FROM {table} WHERE ctid = (SELECT min(ctid) FROM {table})")
            with pytest.raises(WrongRowsError, match=f"{table}: 1 "):
                check_rows(database, expected, {})


def test_a_missing_row_is_found_in_mongodb(mongodb_url: str) -> None:
    with ProvenanceStorageMongoDb(db=mongodb_url) as storage:
        storage.setup(RANGE_COUNTS)
    with MongoDbDatabase(mongodb_url) as database, StorageWriter(database.storage_config).opened() as write:
        for each in one_of_each(random.Random(3), 20):
            write(each)
        stored = database.counts()
        more = one_of_each(random.Random(4), 20)
        for each in more:
            write(each)
        expected = expected_rows(more)
        for table in TABLES:
            check_rows(database, expected, stored)
            row = expected[table].pop()
            with pytest.raises(WrongRowsError, match=f"{table} holds 40 rows and not 39"):
                check_rows(database, expected, stored)
            other = (row[0], *(b"other" for _ in row[1:]), b"other")
            expected[table].add(other)
            with pytest.raises(WrongRowsError, match=f"{table}: 2 "):
                check_rows(database, expected, stored)
            expected[table] = expected[table] - {other} | {row}


class Fault(Enum):
    """The fate of one content of a call."""

    MISSING = "not stored"
    WRONG = "stored with another date"

    def planted(self, write: Write) -> Write:
        data = dict(write.data)
        id, date = data.popitem()
        if self is Fault.WRONG:
            data[id] = date.replace(year=1990)
        return Write(write.table, data, len(data))


@dataclass(frozen=True)
class FaultyWriter:
    """A subject's writer, with a fault in every call."""

    writer: Writer
    fault: Fault

    @contextmanager
    def opened(self) -> Iterator[Callable[[Write], None]]:
        with self.writer.opened() as write:
            yield lambda each: write(self.fault.planted(each))


@pytest.fixture(scope="module")
def subjects(shared_stack: Stack) -> Iterator[Subjects]:
    with Subjects(shared_stack) as opened:
        yield opened


def some_contents(source: random.Random, count: int) -> list[Write]:
    return [loads.contents(source, count)]


@pytest.mark.parametrize(("fault", "grows"), [(Fault.MISSING, False), (Fault.WRONG, False), (Fault.WRONG, True)])
@pytest.mark.parametrize("name", [GATEWAY, DIRECT, LIMIT, HABITS])
def test_every_row_of_every_subject_is_checked(
    name: str, fault: Fault, grows: bool, subjects: Subjects, shared_stack: Stack
) -> None:
    subject = subjects.get(name)
    with subject.writers[0].opened() as write:
        write(loads.contents(random.Random(name), 10))
    faulty = replace(subject, writers=[FaultyWriter(writer, fault) for writer in subject.writers])
    workload = Workload("contents", "contents", some_contents, 50, [name], warms_up=False, grows=grows)
    with pytest.raises(WrongRowsError, match="content: ") as raised:
        measure(workload, [faulty], shared_stack.path, rounds=1)
    assert str(raised.value).startswith(f"content: {1 if fault is Fault.MISSING else 2} rows")


def test_a_small_benchmark_from_end_to_end(tmp_path: Path) -> None:
    outputs = tmp_path / "seen.json", tmp_path / "seen.svg"
    command = [sys.executable, "-m", "bench", "--only", "contents", "--entries", "1000", "--rounds", "1"]
    command += ["--json", str(outputs[0]), "--plot", str(outputs[1])]
    done = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(outputs[0].read_text(encoding="utf-8"))
    assert set(seen["figures"]["contents"]) == {"gateway", "direct", "limit", "habits"}
    (contents,) = seen["written"]
    assert {run["entries"] for run in contents["runs"]} == {1_000}
    assert all(run["seconds"] > 0 and run["cpu_s"]["client"] > 0 for run in contents["runs"])
    assert seen["machine"]["postgresql"][0].isdigit()
    assert "content_add" in done.stdout
    assert "<svg" in outputs[1].read_text(encoding="utf-8")
