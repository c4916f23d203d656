"""The checker of the fault tests fails where something acked is lost, or something is held that nobody sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from provgate_storage import RelationData, RelationType, RevisionData
from tests.support.loss_checker import Call, Checker
from tests.support.reference import InMemoryProvenanceStorage

Write = tuple[str, tuple[Any, ...]]
EARLY, LATE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 1, 1, tzinfo=UTC)
A, B, ORIGIN, OTHER = (letter * 20 for letter in (b"a", b"b", b"o", b"p"))
URL = "https://example.org/"
NOT_SENT = b"n" * 20

ACKED: dict[str, Write] = {
    "content": ("content_add", ({A: EARLY, B: EARLY},)),
    "directory": ("directory_add", ({A: EARLY},)),
    "revision": ("revision_add", ({A: RevisionData(EARLY, ORIGIN)},)),
    "origin": ("origin_add", ({OTHER: URL},)),
    "location": ("location_add", ({b"of no relation"},)),
    **{
        relation.value: ("relation_add", (relation, {A: {RelationData(B, b"path" if relation.has_path else None)}}))
        for relation in RelationType
    },
}


def storage_with(writes: dict[str, Write]) -> InMemoryProvenanceStorage:
    storage = InMemoryProvenanceStorage()
    storage.open()
    for method, arguments in writes.values():
        getattr(storage, method)(*arguments)
    return storage


def checker_of(writes: dict[str, Write], *, acked: bool = True) -> Checker:
    checker = Checker()
    for method, arguments in writes.values():
        checker.record(Call(method, arguments, acked, None))
    return checker


def test_what_is_held_as_it_was_acked_passes() -> None:
    checker_of(ACKED).check(storage_with(ACKED))


@pytest.mark.parametrize("lost", ACKED)
def test_a_write_that_is_lost_is_noticed(lost: str) -> None:
    held = storage_with({name: write for name, write in ACKED.items() if name != lost})
    with pytest.raises(AssertionError, match="held"):
        checker_of(ACKED).check(held)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("content", ("content_add", ({A: EARLY},))),
        ("content", ("content_add", ({A: EARLY, B: None},))),
        ("content", ("content_add", ({A: EARLY, B: LATE},))),
        ("directory", ("directory_add", ({A: LATE},))),
        ("revision", ("revision_add", ({A: RevisionData(LATE, ORIGIN)},))),
        ("revision", ("revision_add", ({A: RevisionData(EARLY, None)},))),
    ],
)
def test_a_part_of_a_write_that_is_lost_is_noticed(name: str, part: Write) -> None:
    with pytest.raises(AssertionError, match="held"):
        checker_of(ACKED).check(storage_with({**ACKED, name: part}))


@pytest.mark.parametrize(
    "invented",
    [
        ("content_add", ({NOT_SENT: EARLY},)),
        ("content_add", ({A: datetime(2000, 1, 1, tzinfo=UTC)},)),
        ("revision_add", ({NOT_SENT: RevisionData(None, None)},)),
        ("origin_add", ({NOT_SENT: URL},)),
        ("location_add", ({b"not sent"},)),
        ("relation_add", (RelationType.CNT_IN_DIR, {A: {RelationData(B, b"not sent")}})),
    ],
)
def test_what_nobody_sent_is_noticed(invented: Write) -> None:
    with pytest.raises(AssertionError, match="nobody sent"):
        checker_of(ACKED).check(storage_with({**ACKED, "invented": invented}))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("origin_add", ({OTHER: "https://example.com/"},)), ("origin_add", ({OTHER: "https://example.net/"},))),
        (("revision_add", ({A: RevisionData(EARLY, ORIGIN)},)), ("revision_add", ({A: RevisionData(EARLY, OTHER)},))),
    ],
)
def test_a_value_that_is_none_of_those_sent_is_noticed(before: Write, after: Write) -> None:
    # The origin itself was sent by another write: what differs is the register alone.
    known = {"origins": ("origin_add", ({ORIGIN: URL} if after[0] == "origin_add" else {ORIGIN: URL, OTHER: URL},))}
    with pytest.raises(AssertionError, match="nobody sent"):
        checker_of({**known, "write": before}).check(storage_with({**known, "write": after}))


@pytest.mark.parametrize("held", [{}, ACKED])
def test_what_is_attempted_and_not_acked_may_be_held_or_not(held: dict[str, Write]) -> None:
    checker_of(ACKED, acked=False).check(storage_with(held))


def test_a_write_that_raises_is_attempted_and_one_that_returns_false_is_not_acked() -> None:
    class Failing(InMemoryProvenanceStorage):
        answer: Callable[[], bool]

        def content_add(self, cnts: Any) -> bool:
            return self.answer()

    def fail() -> bool:
        raise ConnectionError

    checker, storage = Checker(), Failing()
    storage.answer = fail
    with pytest.raises(ConnectionError):
        checker.write(storage, "content_add", {A: EARLY})
    storage.answer = lambda: False
    assert not checker.write(storage, "content_add", {B: EARLY})
    assert [call.acked for call in checker.calls] == [False, False]
    for held in ({}, {"content": ACKED["content"]}):
        checker.check(storage_with(held))
