"""What the MongoDB storage does beyond the contract: schema, writes, size of documents, plans, failing reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from provgate_storage.errors import (
    DataRefusedError,
    SchemaMismatchError,
    StorageError,
    StorageForbiddenError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from provgate_storage.model import EntityType, ProvenanceResult, RelationType, RevisionData
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from provgate_storage.mongodb.connection import Connection, Document
from provgate_storage.mongodb.reads import IDS_OF_A_QUERY, MongoDbReads, MongoDbStream
from provgate_storage.mongodb.schema import DEFINITIONS
from provgate_storage.mongodb.settings import parse_settings
from tests.integration.local_storage import (
    CONTENT,
    RANGES,
    RELATION,
    LocalStorageContract,
    NewStorage,
    fill_occurrences,
)
from tests.support.entries import entry_id
from tests.support.examples import DAY, row
from tests.support.link import Link, Mode


@pytest.fixture
def storage(mongodb_url: str) -> Iterator[ProvenanceStorageMongoDb]:
    with ProvenanceStorageMongoDb(db=mongodb_url) as storage:
        storage.setup(RANGES)
        yield storage


@pytest.fixture
def database(mongodb_url: str) -> Iterator[Database[Document]]:
    """The database, over a client of the test's own."""
    with MongoClient[Document](mongodb_url) as client:
        yield client.get_default_database()


def fail(database: Database[Document], times: int, **data: Any) -> None:
    """Makes the server fail commands of the next calls."""
    database.client.admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)


class TestLocalStorage(LocalStorageContract):
    @pytest.fixture
    def new_storage(self, mongodb_url: str) -> NewStorage:
        return partial(ProvenanceStorageMongoDb, db=mongodb_url)


class TestSchema:
    def test_setup_restores_what_is_missing(
        self, storage: ProvenanceStorageMongoDb, database: Database[Document]
    ) -> None:
        database["content_in_directory"].drop_index("dst")
        database.command("collMod", "content", validator={})
        missing = "lacks the index dst of content_in_directory, the validator of content: run `provgate-workers setup`"
        with pytest.raises(SchemaMismatchError, match=missing):
            storage.check(RANGES)
        storage.setup(RANGES)
        storage.check(RANGES)

    def test_setup_builds_an_index_that_takes_longer_than_a_write_may(
        self, storage: ProvenanceStorageMongoDb, database: Database[Document], mongodb_url: str
    ) -> None:
        database["content_in_directory"].drop_index("dst")
        fail(database, 1, failCommands=["createIndexes"], blockConnection=True, blockTimeMS=500)
        with ProvenanceStorageMongoDb(db=mongodb_url, write_timeout_s=0.2) as own:
            own.setup(RANGES)
            own.check(RANGES)

    def test_a_refused_write_makes_no_collection(self, mongodb_url: str, database: Database[Document]) -> None:
        with ProvenanceStorageMongoDb(db=mongodb_url) as storage, pytest.raises(SchemaMismatchError, match="no schema"):
            storage.content_add([entry_id(1)])
        assert database.list_collection_names() == []

    def test_the_collections_of_another_program_are_left_alone(
        self, mongodb_url: str, database: Database[Document]
    ) -> None:
        database["content"].insert_one({"_id": 1})
        expected = pytest.raises(SchemaMismatchError, match=r"collections that are not provgate's \(content\)")
        with ProvenanceStorageMongoDb(db=mongodb_url) as storage, expected:
            storage.setup(RANGES)
        assert database.list_collection_names() == ["content"]


class TestWrites:
    def test_a_refused_row_leaves_the_others_alone(
        self, storage: ProvenanceStorageMongoDb, database: Database[Document]
    ) -> None:
        stricter = {"$and": [DEFINITIONS["content"].validator, {"_id": {"$ne": entry_id(2)}}]}
        database.command("collMod", "content", validator=stricter)
        with pytest.raises(DataRefusedError, match="validation"):
            storage.content_add({entry_id(number): DAY for number in range(4)})
        assert storage.entity_get_all(EntityType.CONTENT) == {entry_id(0), entry_id(1), entry_id(3)}

    def test_an_unknown_value_is_a_missing_field(
        self, storage: ProvenanceStorageMongoDb, database: Database[Document]
    ) -> None:
        storage.content_add([entry_id(1)])
        storage.revision_add({entry_id(1): RevisionData(None, entry_id(2))})
        assert list(database["content"].find()) == [{"_id": entry_id(1)}]
        assert list(database["revision"].find()) == [{"_id": entry_id(1), "origin": entry_id(2)}]

    def test_an_unreachable_server_is_unavailable(self) -> None:
        nowhere = ProvenanceStorageMongoDb(db="mongodb://me:hunter2@127.0.0.1:1/provenance", connect_timeout_s=0.5)
        with pytest.raises(StorageUnavailableError) as caught:
            nowhere.open()
        assert "hunter2" not in str(caught.value)

    def test_a_write_without_an_answer_is_too_large_if_the_server_answers_others(
        self, storage: ProvenanceStorageMongoDb, database: Database[Document], mongodb_url: str
    ) -> None:
        # Two times: the driver repeats a write once.
        fail(database, 2, failCommands=["insert"], blockConnection=True, blockTimeMS=1_000)
        with ProvenanceStorageMongoDb(db=mongodb_url, write_timeout_s=0.2) as own:
            with pytest.raises(StorageTimeoutError, match=r"no answer to a write within 0\.2 s"):
                own.content_add([entry_id(1)])
            assert storage.content_add([entry_id(1)])

    def test_a_server_that_answers_no_call_is_away(self, mongodb_url: str) -> None:
        port = int(mongodb_url.partition("127.0.0.1:")[2].partition("/")[0])
        with Link("127.0.0.1", port) as link:
            url = mongodb_url.replace(f":{port}/", f":{link.port}/")
            settings = {"db": f"{url}?directConnection=true", "connect_timeout_s": 1, "write_timeout_s": 1}
            with ProvenanceStorageMongoDb(**settings) as storage:
                storage.setup(RANGES)
                assert storage.content_add([entry_id(1)])
                link.mode = Mode.BLACK_HOLE
                with pytest.raises(StorageUnavailableError):
                    storage.content_add([entry_id(2)])


def test_a_uri_that_gives_up_durability_is_reported(mongodb_url: str) -> None:
    with ProvenanceStorageMongoDb(db=f"{mongodb_url}{'&' if '?' in mongodb_url else '?'}journal=false") as storage:
        assert [danger.setting for danger in storage.inspect().dangers] == ["journal"]


REVISIONS: Final = 1_000


def test_no_document_grows_with_the_revisions_of_a_content(
    storage: ProvenanceStorageMongoDb, database: Database[Document]
) -> None:
    # The higher its number, the earlier a revision. A document that listed them would have over twenty kilobytes.
    dates = {entry_id(number): DAY - timedelta(seconds=number) for number in range(REVISIONS)}
    storage.revision_add({revision: RevisionData(date, None) for revision, date in dates.items()})
    storage.relation_add(RELATION, {CONTENT: {row(number, b"a/b") for number in range(REVISIONS)}})
    expected = [ProvenanceResult(CONTENT, revision, date, None, b"a/b") for revision, date in reversed(dates.items())]
    assert storage.content_find_first(CONTENT) == expected[0]
    assert list(storage.content_find_all(CONTENT)) == expected
    largest = [{"$group": {"_id": None, "largest": {"$max": {"$bsonSize": "$$ROOT"}}}}]
    ((found),) = database[RELATION].aggregate(largest)
    assert found["largest"] < 300


class TestPlans:
    """No read by id scans a collection. SecantusDB does not say what `$lookup` uses."""

    @pytest.fixture
    def reads(self, storage: ProvenanceStorageMongoDb, mongodb_url: str) -> Iterator[MongoDbReads]:
        connection = Connection(parse_settings({"db": mongodb_url}))
        yield MongoDbReads(connection, connection.read_slots, 30.0, 1_000)
        connection.close()

    def test_rows_are_found_by_their_indexes(self, reads: MongoDbReads, database: Database[Document]) -> None:
        ids = [entry_id(1), entry_id(2)]
        expected: list[tuple[MongoDbStream[Any], str]] = [
            (reads.dates(EntityType.CONTENT, ids), "_id_"),
            (reads.revisions(ids), "_id_"),
            (reads.origins(ids), "_id_"),
            (reads.first_occurrence(CONTENT), "src"),
            (reads.all_occurrences(CONTENT, None), "src"),
            *((reads.relations(relation, ids, reverse=False), "src") for relation in RelationType),
            *((reads.relations(relation, ids, reverse=True), "dst") for relation in RelationType),
        ]
        for stream, index in expected:
            (query,) = stream.queries
            command = {"aggregate": query.collection, "pipeline": list(query.pipeline), "cursor": {}}
            answer = database.command("explain", command, verbosity="queryPlanner")
            scans = [stage for stage in stages_of(answer) if stage["stage"] in ("IXSCAN", "IDHACK", "COLLSCAN")]
            assert all(scan["stage"] != "COLLSCAN" for scan in scans), answer
            assert scans[0].get("indexName", "_id_") == index

    def test_many_ids_are_split(self, reads: MongoDbReads, storage: ProvenanceStorageMongoDb) -> None:
        ids = [number.to_bytes(20) for number in range(10_000)]
        pieces = [query.pipeline[0]["$match"]["_id"]["$in"] for query in reads.origins(ids).queries]
        assert max(map(len, pieces)) == IDS_OF_A_QUERY
        assert [id for piece in pieces for id in piece] == ids
        storage.content_add({ids[-1]: datetime(2020, 1, 1, tzinfo=UTC)})
        assert storage.content_get(ids).keys() == {ids[-1]}


def stages_of(answer: Any) -> Iterator[dict[str, Any]]:
    """Yields every stage of an explained plan."""
    if isinstance(answer, dict):
        if isinstance(answer.get("stage"), str):
            yield answer
        for name, value in answer.items():
            if name != "rejectedPlans":
                yield from stages_of(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from stages_of(value)


@pytest.mark.parametrize(("code", "expected"), [(50, StorageTimeoutError), (13, StorageForbiddenError)])
def test_a_read_that_the_server_ends_or_forbids(
    storage: ProvenanceStorageMongoDb, database: Database[Document], code: int, expected: type[StorageError]
) -> None:
    fill_occurrences(storage, 10)
    fail(database, 1, failCommands=["aggregate"], errorCode=code)
    with pytest.raises(StorageError) as raised:
        storage.relation_get_all(RELATION)
    assert type(raised.value) is expected
    assert len(storage.relation_get_all(RELATION)[CONTENT]) == 10
