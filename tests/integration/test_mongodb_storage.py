"""What the MongoDB storage does beyond the contract: schema, refused rows, plans, streams."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from provgate_storage.errors import (
    DataRefusedError,
    SchemaMismatchError,
    StorageBusyError,
    StorageError,
    StorageForbiddenError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from provgate_storage.model import EntityType, RelationType, RevisionData
from provgate_storage.mongodb import ProvenanceStorageMongoDb, queries
from provgate_storage.mongodb.queries import IDS_OF_A_QUERY, Query
from provgate_storage.mongodb.schema import DEFINITIONS
from tests.contract.examples import DAY, entry_id, row
from tests.contract.local import RANGES, LocalStorageContract, NewStorage


@pytest.fixture
def storage(mongodb_url: str) -> Iterator[ProvenanceStorageMongoDb]:
    with ProvenanceStorageMongoDb(db=mongodb_url) as storage:
        storage.setup(RANGES)
        yield storage


@pytest.fixture
def database(mongodb_url: str) -> Iterator[Database[dict[str, Any]]]:
    """The database, over a client of the test's own."""
    with MongoClient[dict[str, Any]](mongodb_url) as client:
        yield client.get_default_database()


class TestLocalStorage(LocalStorageContract):
    @pytest.fixture
    def new_storage(self, mongodb_url: str) -> NewStorage:
        # The type checker compares the signatures, the test the names.
        return lambda: ProvenanceStorageMongoDb(db=mongodb_url)


class TestSchema:
    def test_setup_restores_what_is_missing(
        self, storage: ProvenanceStorageMongoDb, database: Database[dict[str, Any]]
    ) -> None:
        database["content_in_directory"].drop_index("dst")
        database.command("collMod", "content", validator={})
        missing = "lacks the index dst of content_in_directory, the validator of content: run `provgate-workers setup`"
        with pytest.raises(SchemaMismatchError, match=missing):
            storage.check(RANGES)
        storage.setup(RANGES)
        storage.check(RANGES)

    def test_setup_builds_an_index_that_takes_longer_than_a_write_may(
        self, storage: ProvenanceStorageMongoDb, database: Database[dict[str, Any]], mongodb_url: str
    ) -> None:
        database["content_in_directory"].drop_index("dst")
        data = {"failCommands": ["createIndexes"], "blockConnection": True, "blockTimeMS": 1000}
        database.client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)
        with ProvenanceStorageMongoDb(db=mongodb_url, write_timeout_s=0.5) as own:
            own.setup(RANGES)
            own.check(RANGES)

    def test_a_write_that_is_refused_makes_no_collection(
        self, mongodb_url: str, database: Database[dict[str, Any]]
    ) -> None:
        with ProvenanceStorageMongoDb(db=mongodb_url) as storage, pytest.raises(SchemaMismatchError, match="no schema"):
            storage.content_add([entry_id(1)])
        assert database.list_collection_names() == []

    def test_the_collections_of_somebody_else_are_left_alone(
        self, mongodb_url: str, database: Database[dict[str, Any]]
    ) -> None:
        database["content"].insert_one({"_id": 1})
        expected = pytest.raises(SchemaMismatchError, match=r"collections that are not provgate's \(content\)")
        with ProvenanceStorageMongoDb(db=mongodb_url) as storage, expected:
            storage.setup(RANGES)
        assert database.list_collection_names() == ["content"]


class TestWrites:
    def test_a_row_that_is_refused_leaves_the_others_alone(
        self, storage: ProvenanceStorageMongoDb, database: Database[dict[str, Any]]
    ) -> None:
        stricter = {"$and": [DEFINITIONS["content"].validator, {"_id": {"$ne": entry_id(2)}}]}
        database.command("collMod", "content", validator=stricter)
        with pytest.raises(DataRefusedError, match="validation"):
            storage.content_add({entry_id(number): DAY for number in range(4)})
        assert storage.entity_get_all(EntityType.CONTENT) == {entry_id(0), entry_id(1), entry_id(3)}

    def test_what_is_not_known_is_a_field_that_is_not_there(
        self, storage: ProvenanceStorageMongoDb, database: Database[dict[str, Any]]
    ) -> None:
        storage.content_add([entry_id(1)])
        storage.revision_add({entry_id(1): RevisionData(None, entry_id(2))})
        assert list(database["content"].find()) == [{"_id": entry_id(1)}]
        assert list(database["revision"].find()) == [{"_id": entry_id(1), "origin": entry_id(2)}]

    def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        nowhere = ProvenanceStorageMongoDb(
            db="mongodb://me:hunter2@127.0.0.1:1/provenance", connect_timeout_s=0.5, application_name="test"
        )
        with pytest.raises(StorageUnavailableError) as caught:
            nowhere.open()
        assert "hunter2" not in str(caught.value)
        with pytest.raises(StorageUnavailableError, match="not open"):
            nowhere.content_add([])


def test_a_uri_that_gives_up_durability_is_seen(mongodb_url: str) -> None:
    with ProvenanceStorageMongoDb(db=f"{mongodb_url}{'&' if '?' in mongodb_url else '?'}journal=false") as storage:
        assert [danger.setting for danger in storage.inspect().dangers] == ["journal"]


class TestPlans:
    """No read by id scans a collection. What `$lookup` uses, SecantusDB does not tell."""

    @pytest.mark.parametrize("relation", RelationType)
    @pytest.mark.parametrize(("reverse", "index"), [(False, "src"), (True, "dst")])
    def test_relations_are_found_by_either_end(
        self,
        storage: ProvenanceStorageMongoDb,
        database: Database[dict[str, Any]],
        relation: RelationType,
        reverse: bool,
        index: str,
    ) -> None:
        (query,) = queries.relations(relation, [entry_id(1), entry_id(2)], reverse)
        assert {"stage": "IXSCAN", "indexName": index} in scans(database, query)

    def test_entities_are_found_by_id(
        self, storage: ProvenanceStorageMongoDb, database: Database[dict[str, Any]]
    ) -> None:
        ids = [entry_id(1), entry_id(2)]
        for query in (*queries.dates(EntityType.CONTENT, ids), *queries.revisions(ids), *queries.origins(ids)):
            assert scans(database, query)[0]["indexName"] == "_id_"

    def test_occurrences_are_found_by_content(
        self, storage: ProvenanceStorageMongoDb, database: Database[dict[str, Any]]
    ) -> None:
        for query in (*queries.first_occurrences(entry_id(1)), *queries.all_occurrences(entry_id(1))):
            assert scans(database, query)[0]["indexName"] == "src"

    def test_many_ids_are_cut_into_pieces(self, storage: ProvenanceStorageMongoDb) -> None:
        ids = [number.to_bytes(20) for number in range(100_000)]
        pieces = [query.pipeline[0]["$match"]["_id"]["$in"] for query in queries.origins(ids)]
        assert max(map(len, pieces)) == IDS_OF_A_QUERY
        assert [id for piece in pieces for id in piece] == ids
        storage.content_add({ids[-1]: datetime(2020, 1, 1, tzinfo=UTC)})
        assert storage.content_get(ids[::10] + ids[-1:]).keys() == {ids[-1]}


def scans(database: Database[dict[str, Any]], query: Query) -> list[dict[str, Any]]:
    """Returns stage and index of the scans of a query's winning plan; fails where a collection is scanned."""
    command = {"aggregate": query.collection, "pipeline": list(query.pipeline), "cursor": {}}
    answer = database.command("explain", command, verbosity="queryPlanner")
    found = [
        {"stage": stage["stage"], "indexName": stage.get("indexName", "_id_")}
        for stage in stages_of(answer)
        if stage["stage"] in ("IXSCAN", "IDHACK", "COLLSCAN")
    ]
    assert found
    assert all(scan["stage"] != "COLLSCAN" for scan in found), answer
    return found


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


class TestStreams:
    @pytest.fixture
    def filled(self, mongodb_url: str) -> Iterator[ProvenanceStorageMongoDb]:
        limits = {"stream_connections": 2, "stream_wait_s": 0.05, "stream_chunk_row_count": 100}
        with ProvenanceStorageMongoDb(db=mongodb_url, **limits) as storage:
            storage.setup(RANGES)
            storage.revision_add({entry_id(5): RevisionData(DAY, None)})
            rows = {row(5, b"%06d" % number) for number in range(250)}
            storage.relation_add(RelationType.CNT_EARLY_IN_REV, {entry_id(1): rows})
            yield storage

    def test_chunks_are_no_larger_than_is_said(self, filled: ProvenanceStorageMongoDb) -> None:
        with filled.content_find_all_stream(entry_id(1)) as stream:
            assert [len(chunk) for chunk in stream] == [100, 100, 50]

    def test_cancel_before_and_between_chunks(self, filled: ProvenanceStorageMongoDb) -> None:
        early = filled.relation_get_all_stream(RelationType.CNT_EARLY_IN_REV)
        early.cancel()
        with pytest.raises(StorageUnavailableError, match="cancelled"):
            next(iter(early))
        stream = filled.relation_get_all_stream(RelationType.CNT_EARLY_IN_REV)
        chunks = iter(stream)
        next(chunks)
        stream.cancel()
        with pytest.raises(StorageUnavailableError, match="cancelled"):
            next(chunks)
        stream.cancel()
        stream.close()

    @pytest.mark.parametrize(("code", "expected"), [(50, StorageTimeoutError), (13, StorageForbiddenError)])
    def test_a_read_that_the_server_ends_or_forbids(
        self,
        filled: ProvenanceStorageMongoDb,
        database: Database[dict[str, Any]],
        code: int,
        expected: type[StorageError],
    ) -> None:
        admin, data = database.client.admin, {"failCommands": ["aggregate"], "errorCode": code}
        admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)
        with pytest.raises(StorageError) as raised:
            filled.relation_get_all(RelationType.CNT_EARLY_IN_REV)
        assert type(raised.value) is expected
        assert len(filled.relation_get_all(RelationType.CNT_EARLY_IN_REV)[entry_id(1)]) == 250

    def test_too_many_streams_are_refused_and_reads_by_id_go_on(self, filled: ProvenanceStorageMongoDb) -> None:
        streams = [filled.content_find_all(entry_id(1)) for _ in range(2)]
        for stream in streams:
            next(stream)
        with pytest.raises(StorageBusyError, match="the limit is 2"):
            filled.relation_get_all(RelationType.CNT_EARLY_IN_REV)
        assert filled.content_find_first(entry_id(1)) is not None
        streams.pop().close()
        assert filled.relation_get_all(RelationType.CNT_EARLY_IN_REV) != {}
        streams.pop().close()
