"""However many revisions a content is in, no document grows with them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from pymongo import MongoClient

from provgate_storage.model import ProvenanceResult, RelationType, RevisionData
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from tests.support.entries import entry_id
from tests.support.examples import DAY, row

# A document that listed them, with a path each, would be over twenty kilobytes.
COUNT: Final = 2_000
CONTENT: Final = entry_id(1)


def test_a_content_in_many_revisions_is_found_first_and_found_all(mongodb_url: str) -> None:
    # The higher its number, the earlier a revision.
    dates = {entry_id(number): DAY - timedelta(seconds=number) for number in range(COUNT)}
    with ProvenanceStorageMongoDb(db=mongodb_url) as storage:
        storage.setup({"content": 16})
        storage.revision_add({revision: RevisionData(date, None) for revision, date in dates.items()})
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {CONTENT: {row(number, b"a/b") for number in range(COUNT)}})
        expected = [
            ProvenanceResult(CONTENT, revision, date, None, b"a/b") for revision, date in reversed(dates.items())
        ]
        assert storage.content_find_first(CONTENT) == expected[0]
        found = list(storage.content_find_all(CONTENT))
    assert found == expected
    assert largest_document_bytes(mongodb_url) < 300


def largest_document_bytes(url: str) -> int:
    pipeline: list[dict[str, Any]] = [{"$group": {"_id": None, "largest": {"$max": {"$bsonSize": "$$ROOT"}}}}]
    with MongoClient[dict[str, Any]](url) as client:
        ((answer),) = client.get_default_database()["content_in_revision"].aggregate(pipeline)
        return int(answer["largest"])
