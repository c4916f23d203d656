"""Which write concerns endanger what was acked."""

from __future__ import annotations

from typing import Any

import pytest

from provgate_storage.mongodb.inspection import dangers_of_writes

THREE = {"setName": "s", "hosts": ["a", "b", "c"]}
ONE = {"setName": "s", "hosts": ["a"]}
ALONE: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("write_concern", "hello", "settings"),
    [
        ({"w": "majority", "j": True}, THREE, []),
        ({"w": 2, "j": True}, THREE, []),
        ({"w": "two_data_centres", "j": True}, THREE, []),
        ({"w": 1, "j": True}, THREE, ["w"]),
        ({"j": True}, THREE, ["w"]),
        ({"w": 1, "j": True}, ONE, []),
        ({"w": 1, "j": True}, ALONE, []),
        ({"w": 1, "j": False}, ALONE, ["journal"]),
        ({"w": 1}, THREE, ["w", "journal"]),
    ],
)
def test_less_than_a_majority_or_no_journal(
    write_concern: dict[str, Any], hello: dict[str, Any], settings: list[str]
) -> None:
    assert [danger.setting for danger in dangers_of_writes(write_concern, hello)] == settings
