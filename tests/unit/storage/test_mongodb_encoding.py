"""Values as documents hold them."""

from __future__ import annotations

import hashlib

from provgate_storage.mongodb.writes import location_key, relation_key
from tests.support.entries import entry_id
from tests.support.examples import ODD_PATHS


def test_keys_are_of_one_length_and_differ() -> None:
    locations = {location_key(path) for path in ODD_PATHS}
    rows = {relation_key(entry_id(1), entry_id(2), path) for path in ODD_PATHS}
    assert {len(key) for key in locations} == {52}
    assert {len(key) for key in rows} == {72}
    assert len(locations) == len(rows) == len(ODD_PATHS)
    assert relation_key(entry_id(1), entry_id(2)) == entry_id(1) + entry_id(2)


def test_a_location_is_in_the_range_of_its_id() -> None:
    for path in ODD_PATHS:
        assert location_key(path).startswith(hashlib.sha1(path).digest())
