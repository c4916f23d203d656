"""Two writer processes that hammer the same ids leave what the contract computes."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import RelationData, RelationType, RevisionData
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from tests.support.entries import entry_id
from tests.support.examples import DAY, ODD_PATHS, state_of
from tests.support.reference import InMemoryProvenanceStorage

IDS: Final = 40
CALLS: Final = 50
SEEDS: Final = (1, 2)


def test_two_writers_leave_what_either_order_leaves(mongodb_url: str) -> None:
    with ProvenanceStorageMongoDb(db=mongodb_url) as storage:
        storage.setup({"content": 16})
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(len(SEEDS))
        writers = [context.Process(target=write, args=(mongodb_url, start, seed)) for seed in SEEDS]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(200)
        assert [writer.exitcode for writer in writers] == [0, 0]
        reference = InMemoryProvenanceStorage()
        for seed in SEEDS:
            hammer(reference, seed)
        found, expected = state_of(storage), state_of(reference)
    # Which URL came first, and which preferred origin last, is a matter of the race: one of the values sent.
    urls, preferred = found.pop("origins"), {id: data.origin for id, data in found["revisions"].items()}
    assert urls.keys() == expected.pop("origins").keys()
    assert set(urls.values()) <= {url_of(seed) for seed in SEEDS}
    assert set(preferred.values()) <= {origin_of(seed) for seed in SEEDS}
    for state in (found, expected):
        state["revisions"] = {id: data.date for id, data in state["revisions"].items()}
        state["first"] = {
            id: first and (first.revision, first.date, first.path) for id, first in state["first"].items()
        }
        state["all"] = {
            id: [(each.revision, each.date, each.path) for each in found_all] for id, found_all in state["all"].items()
        }
    assert found == expected


def write(url: str, start: object, seed: int) -> None:
    """What a writer process does."""
    with ProvenanceStorageMongoDb(db=url) as storage:
        start.wait(60)  # type: ignore[attr-defined]
        hammer(storage, seed)


def hammer(storage: ProvenanceStorageInterface, seed: int) -> None:
    """Writes every kind of entry of the same few ids, again and again."""
    draw = random.Random(seed)
    for _ in range(CALLS):
        ids = [entry_id(number) for number in draw.sample(range(IDS), 12)]
        dates = {id: DAY + timedelta(seconds=draw.randrange(-1_000, 1_000)) for id in ids}
        storage.content_add(dates)
        storage.directory_add(dates)
        storage.revision_add({id: RevisionData(date, origin_of(seed)) for id, date in dates.items()})
        # Those that are preferred too, so that it is no matter of the race which are known.
        storage.origin_add(dict.fromkeys([*ids, origin_of(seed)], url_of(seed)))
        storage.location_add(draw.sample(ODD_PATHS, 3))
        for relation in RelationType:
            storage.relation_add(relation, {id: rows_of(draw, relation, ids) for id in ids})


def rows_of(draw: random.Random, relation: RelationType, ids: Sequence[bytes]) -> set[RelationData]:
    path = draw.choice(ODD_PATHS[:4]) if relation.has_path else None
    return {RelationData(draw.choice(ids), path)}


def url_of(seed: int) -> str:
    return f"https://example.org/{seed}"


def origin_of(seed: int) -> bytes:
    return entry_id(100 + seed)
