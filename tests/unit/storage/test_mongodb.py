"""The MongoDB storage: keys of documents, and write concerns that endanger acked rows."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from provgate_storage.mongodb.inspection import dangers_of_writes
from provgate_storage.mongodb.writes import location_key, relation_key
from tests.support.entries import entry_id
from tests.support.examples import ODD_PATHS


def test_keys_have_one_length_and_differ() -> None:
    locations = {location_key(path) for path in ODD_PATHS}
    rows = {relation_key(entry_id(1), entry_id(2), path) for path in ODD_PATHS}
    assert {len(key) for key in locations} == {52}
    assert {len(key) for key in rows} == {72}
    assert len(locations) == len(rows) == len(ODD_PATHS)
    assert relation_key(entry_id(1), entry_id(2)) == entry_id(1) + entry_id(2)


def test_a_location_is_in_the_range_of_its_id() -> None:
    for path in ODD_PATHS:
        assert location_key(path).startswith(hashlib.sha1(path).digest())


THREE = {"setName": "s", "hosts": ["a", "b", "c"]}
ONE = {"setName": "s", "hosts": ["a"]}
STANDALONE: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("write_concern", "hello", "settings"),
    [
        ({"w": "majority", "j": True}, THREE, []),
        ({"w": 2, "j": True}, THREE, []),
        ({"w": "two_data_centres", "j": True}, THREE, []),
        ({"w": 1, "j": True}, THREE, ["w"]),
        ({"j": True}, THREE, ["w"]),
        ({"w": 1, "j": True}, ONE, []),
        ({"w": 1, "j": True}, STANDALONE, []),
        ({"w": 1, "j": False}, STANDALONE, ["journal"]),
        ({"w": 1}, THREE, ["w", "journal"]),
    ],
)
def test_less_than_a_majority_or_no_journal_is_a_danger(
    write_concern: dict[str, Any], hello: dict[str, Any], settings: list[str]
) -> None:
    assert [danger.setting for danger in dangers_of_writes(write_concern, hello)] == settings
