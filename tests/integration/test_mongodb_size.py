"""A content that is in more revisions than a document could list."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from pymongo import MongoClient

from provgate_storage.model import ProvenanceResult, RelationType, RevisionData
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from tests.contract.examples import DAY, entry_id, row

COUNT: Final = 200_000
CONTENT: Final = entry_id(1)


def test_a_content_in_200_000_revisions_is_found_first_and_found_all(mongodb_url: str) -> None:
    # The higher its number, the earlier a revision.
    dates = {entry_id(number): DAY - timedelta(seconds=number) for number in range(COUNT)}
    # SecantusDB looks some thousand revisions up a second.
    with ProvenanceStorageMongoDb(db=mongodb_url, read_timeout_s=200) as storage:
        storage.setup({})
        storage.revision_add({revision: RevisionData(date, None) for revision, date in dates.items()})
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {CONTENT: {row(number, b"a/b") for number in range(COUNT)}})
        expected = [
            ProvenanceResult(CONTENT, revision, date, None, b"a/b") for revision, date in reversed(dates.items())
        ]
        assert storage.content_find_first(CONTENT) == expected[0]
        found = list(storage.content_find_all(CONTENT))
    # Not by one `==`: pytest would take an hour to say how they differ.
    assert len(found) == COUNT
    assert all(one == other for one, other in zip(found, expected, strict=True))
    assert largest_document_bytes(mongodb_url) < 300


def largest_document_bytes(url: str) -> int:
    pipeline: list[dict[str, Any]] = [{"$group": {"_id": None, "largest": {"$max": {"$bsonSize": "$$ROOT"}}}}]
    with MongoClient[dict[str, Any]](url) as client:
        ((answer),) = client.get_default_database()["content_in_revision"].aggregate(pipeline)
        return int(answer["largest"])
