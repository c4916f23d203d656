"""What every `ProvenanceStorageInterface` does, whatever it is made of.

An implementation's test file subclasses `ProvenanceStorageContract` and gives it a fixture `storage`: open and empty.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import EntityType, ProvenanceResult, RelationData, RelationType, RevisionData
from tests.support.entries import entry_id
from tests.support.examples import (
    DAY,
    EARLIEST_DATE,
    LATEST_DATE,
    ODD_PATHS,
    Write,
    apply,
    example_scope,
    row,
    state_of,
    writes,
)
from tests.support.reference import InMemoryProvenanceStorage

Storage = ProvenanceStorageInterface

# Each example uses ids of its own, so that the storage need not be emptied between them, and the executor that differs
# is the implementation under test.
PROPERTY: Final = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)

DATES: Final = [
    EARLIEST_DATE,
    LATEST_DATE,
    datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(1582, 10, 10, 12, 30, 59, 999_999, tzinfo=UTC),
    datetime(1899, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC),
]
URLS: Final = [
    "x",
    "x" * 8192,
    "é" * 4096,
    "https://example.org/\U0001f600?a=1&b='\"\\{},%s NULL\r\n\t",
    "NULL",
    "{}",
]
INVALID: Final[dict[InvalidValue, list[Any]]] = {
    InvalidValue.ID: [b"", b"x" * 19, b"x" * 21, b"61" * 20, "61" * 20, "x" * 20, None, 7],
    InvalidValue.PATH: [b"a\0b", b"x" * 4097, "text", None],
    InvalidValue.URL: ["", "a\0b", "x" * 8193, "é" * 4097, "\ud800", b"bytes", None],
    InvalidValue.DATE: [
        datetime(2020, 1, 1),
        LATEST_DATE.replace(tzinfo=timezone(-timedelta(hours=1))),
        EARLIEST_DATE.replace(tzinfo=timezone(timedelta(hours=1))),
        "2020-01-01",
        0,
    ],
}


class ProvenanceStorageContract:
    """The tests. `storage` is a `ProvenanceStorageInterface`, open and empty.

    Attributes:
        large_count: rows of a large call: more than one statement and one package take.
    """

    large_count = 50_000

    # The interface itself

    def test_it_is_a_provenance_storage(self, storage: Storage) -> None:
        assert isinstance(storage, ProvenanceStorageInterface)
        assert storage.with_path() is True

    def test_open_twice_and_close_twice_are_harmless(self, storage: Storage) -> None:
        storage.open()
        assert storage.location_add([b"kept"]) is True
        storage.close()
        storage.close()
        with storage as opened_again:
            assert opened_again.location_get_all() == {b"kept"}
        storage.open()

    def test_an_empty_storage_stays_empty_after_empty_arguments(self, storage: Storage) -> None:
        assert storage.content_add([]) is True
        assert storage.directory_add({}) is True
        assert storage.revision_add({}) is True
        assert storage.origin_add({}) is True
        assert storage.location_add(set()) is True
        for relation in RelationType:
            assert storage.relation_add(relation, {}) is True
            assert storage.relation_add(relation, {entry_id(1): set()}) is True
            assert storage.relation_get(relation, []) == {}
            assert storage.relation_get(relation, [entry_id(1)], reverse=True) == {}
        ids: list[bytes]
        for ids in ([], [entry_id(1)]):
            assert storage.content_get(iter(ids)) == {}
            assert storage.directory_get(set(ids)) == {}
            assert storage.revision_get(tuple(ids)) == {}
            assert storage.origin_get(ids) == {}
        assert storage.content_find_first(entry_id(1)) is None
        assert list(storage.content_find_all(entry_id(1))) == []
        assert state_of(storage) == state_of(InMemoryProvenanceStorage())

    def test_any_iterable_will_do_and_may_hold_duplicates(self, storage: Storage) -> None:
        ids = [entry_id(1), entry_id(2), entry_id(1)]
        assert storage.content_add(iter(ids)) is True
        assert storage.directory_add(tuple(ids)) is True
        assert storage.revision_add(iter(ids)) is True
        assert storage.location_add([b"a", b"b", b"a"]) is True
        for entity in (EntityType.CONTENT, EntityType.DIRECTORY, EntityType.REVISION):
            assert storage.entity_get_all(entity) == {entry_id(1), entry_id(2)}
        assert storage.location_get_all() == {b"a", b"b"}
        storage.content_add({entry_id(1): DAY})
        assert storage.content_get(iter([*ids, *ids])) == {entry_id(1): DAY}

    # Contents and directories

    def test_the_earliest_date_stays_and_none_never_replaces_a_date(self, storage: Storage) -> None:
        ids = [entry_id(1), entry_id(2)]
        steps = [(None, None), (DAY, DAY), (later(1), DAY), (None, DAY), (later(-1), later(-1)), (DAY, later(-1))]
        for entity, add, get in [
            (EntityType.CONTENT, storage.content_add, storage.content_get),
            (EntityType.DIRECTORY, storage.directory_add, storage.directory_get),
        ]:
            assert add(ids) is True
            assert storage.entity_get_all(entity) == set(ids)
            for date, kept in steps:
                assert add({entry_id(1): date, entry_id(2): None}) is True
                assert get(ids) == ({} if kept is None else {entry_id(1): kept})

    def test_entities_of_different_types_are_apart(self, storage: Storage) -> None:
        storage.content_add({entry_id(1): DAY})
        storage.directory_add({entry_id(1): later(1)})
        storage.revision_add({entry_id(1): RevisionData(later(2), None)})
        assert storage.content_get([entry_id(1)]) == {entry_id(1): DAY}
        assert storage.directory_get([entry_id(1)]) == {entry_id(1): later(1)}
        assert storage.revision_get([entry_id(1)]) == {entry_id(1): RevisionData(later(2), None)}
        assert storage.entity_get_all(EntityType.ORIGIN) == set()

    # Dates

    def test_dates_come_back_exactly(self, storage: Storage) -> None:
        sent = {entry_id(number): date for number, date in enumerate(DATES)}
        storage.content_add(sent)
        storage.directory_add(sent)
        storage.revision_add({revision: RevisionData(date, None) for revision, date in sent.items()})
        rows = {entry_id(number): {row(number, b"a")} for number, _ in enumerate(DATES)}
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, rows)
        firsts = [storage.content_find_first(content) for content in sent]
        for found in (
            storage.content_get(sent),
            storage.directory_get(sent),
            {revision: data.date for revision, data in storage.revision_get(sent).items()},
            {first.content: first.date for first in firsts if first is not None},
        ):
            assert found == sent
            assert all(date is not None and date.utcoffset() == timedelta(0) for date in found.values())

    def test_dates_of_other_time_zones_come_back_in_utc(self, storage: Storage) -> None:
        zones = [timezone(timedelta(hours=14)), timezone(-timedelta(hours=11, minutes=17, seconds=3))]
        given_dates = {entry_id(number): DAY.astimezone(zone) for number, zone in enumerate(zones)}
        storage.content_add(given_dates)
        found = storage.content_get(given_dates)
        assert found == dict.fromkeys(given_dates, DAY)
        assert {date.utcoffset() for date in found.values()} == {timedelta(0)}

    @PROPERTY
    @given(dates=st.lists(st.datetimes(timezones=st.just(UTC)), min_size=1, max_size=30))
    def test_any_dates_come_back_exactly(self, storage: Storage, dates: list[datetime]) -> None:
        scope = example_scope()
        sent = {scope.id(number): date for number, date in enumerate(dates)}
        storage.content_add(sent)
        assert storage.content_get(sent) == sent

    # Locations

    def test_locations_are_a_set_of_byte_strings(self, storage: Storage) -> None:
        assert storage.location_add(ODD_PATHS) is True
        assert storage.location_add([ODD_PATHS[0], b"new"]) is True
        assert storage.location_get_all() == {*ODD_PATHS, b"new"}

    # Origins

    def test_the_first_url_stays(self, storage: Storage) -> None:
        assert storage.origin_add({entry_id(1): "https://example.org/first"}) is True
        assert storage.origin_add({entry_id(1): "https://example.org/second", entry_id(2): "b"}) is True
        assert storage.origin_get([entry_id(1), entry_id(2), entry_id(3)]) == {
            entry_id(1): "https://example.org/first",
            entry_id(2): "b",
        }
        assert storage.entity_get_all(EntityType.ORIGIN) == {entry_id(1), entry_id(2)}

    def test_urls_come_back_as_they_were(self, storage: Storage) -> None:
        sent = {entry_id(number): url for number, url in enumerate(URLS)}
        storage.origin_add(sent)
        assert storage.origin_get(sent) == sent

    # Revisions

    def test_date_and_preferred_origin_of_a_revision_merge_apart(self, storage: Storage) -> None:
        steps = [
            (RevisionData(None, None), None),
            (RevisionData(DAY, None), RevisionData(DAY, None)),
            (RevisionData(None, entry_id(8)), RevisionData(DAY, entry_id(8))),
            (RevisionData(None, None), RevisionData(DAY, entry_id(8))),
            (RevisionData(later(1), entry_id(9)), RevisionData(DAY, entry_id(9))),  # the date loses, the origin wins
            (RevisionData(later(-1), None), RevisionData(later(-1), entry_id(9))),
            (RevisionData(later(-1), entry_id(9)), RevisionData(later(-1), entry_id(9))),
        ]
        for sent, kept in steps:
            assert storage.revision_add({entry_id(1): sent}) is True
            assert storage.revision_get([entry_id(1)]) == ({} if kept is None else {entry_id(1): kept})
        assert storage.entity_get_all(EntityType.REVISION) == {entry_id(1)}

    def test_a_revision_with_only_an_origin_is_known(self, storage: Storage) -> None:
        storage.revision_add({entry_id(1): RevisionData(None, entry_id(8))})
        assert storage.revision_get([entry_id(1)]) == {entry_id(1): RevisionData(None, entry_id(8))}

    def test_an_unknown_origin_is_kept_and_its_url_appears_when_it_arrives(self, storage: Storage) -> None:
        storage.revision_add({entry_id(1): RevisionData(DAY, entry_id(8))})
        storage.relation_add(RelationType.REV_IN_ORG, {entry_id(1): {RelationData(entry_id(9), None)}})
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {entry_id(2): {row(1, b"a")}})
        assert storage.entity_get_all(EntityType.ORIGIN) == {entry_id(8), entry_id(9)}
        assert storage.origin_get([entry_id(8), entry_id(9)]) == {}
        assert storage.content_find_first(entry_id(2)) == occurrence(2, 1, DAY, b"a", None)
        storage.origin_add({entry_id(8): "https://example.org"})
        assert storage.content_find_first(entry_id(2)) == occurrence(2, 1, DAY, b"a", "https://example.org")
        assert list(storage.content_find_all(entry_id(2))) == [occurrence(2, 1, DAY, b"a", "https://example.org")]

    # Relations

    @pytest.mark.parametrize("relation", RelationType)
    def test_rows_are_a_set_that_is_read_from_either_end(self, storage: Storage, relation: RelationType) -> None:
        paths: list[bytes | None] = [*ODD_PATHS] if relation.has_path else [None]
        rows = {entry_id(1): {row(7, path) for path in paths} | {row(8, paths[0])}, entry_id(2): {row(7, paths[0])}}
        assert storage.relation_add(relation, rows) is True
        assert storage.relation_add(relation, {entry_id(1): {row(8, paths[0]), row(9, paths[-1])}}) is True
        rows[entry_id(1)].add(row(9, paths[-1]))
        assert storage.relation_get_all(relation) == rows
        assert storage.relation_get(relation, [entry_id(1), entry_id(5)]) == {entry_id(1): rows[entry_id(1)]}
        assert storage.relation_get(relation, [entry_id(7)], reverse=True) == {
            entry_id(1): {row(7, path) for path in paths},
            entry_id(2): {row(7, paths[0])},
        }
        assert storage.relation_get(relation, [entry_id(1)], reverse=True) == {}
        assert storage.relation_get(relation, [entry_id(7)]) == {}
        assert storage.location_get_all() == (set(ODD_PATHS) if relation.has_path else set())

    def test_relations_are_apart(self, storage: Storage) -> None:
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {entry_id(1): {row(7, b"a")}})
        storage.relation_add(RelationType.CNT_IN_DIR, {entry_id(1): {row(7, b"b")}})
        assert storage.relation_get_all(RelationType.CNT_EARLY_IN_REV) == {entry_id(1): {row(7, b"a")}}
        assert storage.relation_get_all(RelationType.CNT_IN_DIR) == {entry_id(1): {row(7, b"b")}}
        assert storage.relation_get_all(RelationType.DIR_IN_REV) == {}

    @pytest.mark.parametrize("relation", RelationType)
    def test_a_relation_before_its_entities_implies_them(self, storage: Storage, relation: RelationType) -> None:
        path = b"p" if relation.has_path else None
        storage.relation_add(relation, {entry_id(1): {row(2, path)}})
        for entity in EntityType:
            implied = {relation.source: {entry_id(1)}, relation.destination: {entry_id(2)}}
            if relation.source is relation.destination:
                implied = {relation.source: {entry_id(1), entry_id(2)}}
            assert storage.entity_get_all(entity) == implied.get(entity, set())
        assert storage.location_get_all() == ({path} if path else set())
        assert storage.content_get([entry_id(1)]) == {}
        assert storage.directory_get([entry_id(1), entry_id(2)]) == {}
        assert storage.revision_get([entry_id(1), entry_id(2)]) == {}

    def test_a_relation_may_be_given_by_its_name(self, storage: Storage) -> None:
        name: Any = "content_in_directory"
        storage.relation_add(name, {entry_id(1): {row(2, b"p")}})
        assert storage.relation_get_all(name) == storage.relation_get_all(RelationType.CNT_IN_DIR) != {}

    # Occurrences

    def test_find_all_joins_paths(self, storage: Storage) -> None:
        storage.revision_add({entry_id(5): RevisionData(DAY, None)})
        prefixes = [b"", b".", b"/", b"..", b"a", b"\xff", b"./", b"x" * 4096]
        storage.relation_add(
            RelationType.CNT_IN_DIR,
            {entry_id(1): {row(number, b"suf/\xfefix") for number, _ in enumerate(prefixes, 10)}},
        )
        storage.relation_add(
            RelationType.DIR_IN_REV, {entry_id(number): {row(5, prefix)} for number, prefix in enumerate(prefixes, 10)}
        )
        joined = [b"suf/\xfefix", *(prefix + b"/suf/\xfefix" for prefix in prefixes[2:])]
        assert list(storage.content_find_all(entry_id(1))) == [
            occurrence(1, 5, DAY, path, None) for path in sorted(joined)
        ]
        assert storage.content_find_first(entry_id(1)) is None

    def test_find_all_gives_each_occurrence_once(self, storage: Storage) -> None:
        storage.revision_add({entry_id(5): RevisionData(DAY, None)})
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {entry_id(1): {row(5, b"a/b"), row(5, b"c")}})
        storage.relation_add(
            RelationType.CNT_IN_DIR, {entry_id(1): {row(10, b"b"), row(11, b"a/b"), row(12, b"b"), row(12, b"a/b")}}
        )
        storage.relation_add(
            RelationType.DIR_IN_REV,
            {entry_id(10): {row(5, b"a")}, entry_id(11): {row(5, b"")}, entry_id(12): {row(5, b"."), row(5, b"a")}},
        )
        assert [result.path for result in storage.content_find_all(entry_id(1))] == [b"a/a/b", b"a/b", b"b", b"c"]

    def test_results_are_ordered_by_date_revision_and_path(self, storage: Storage) -> None:
        dates = {1: later(1), 2: DAY, 3: DAY, 4: later(-1), 5: None}
        storage.revision_add({entry_id(revision): RevisionData(date, None) for revision, date in dates.items()})
        paths = [b"b", b"a", b"a/b", b"a b", b"\xff", b""]
        storage.relation_add(
            RelationType.CNT_EARLY_IN_REV, {entry_id(9): {row(revision, path) for revision in dates for path in paths}}
        )
        expected = [
            occurrence(9, revision, date, path, None)
            for date, revision in [(later(-1), 4), (DAY, 2), (DAY, 3), (later(1), 1)]
            for path in sorted(paths)
        ]
        assert list(storage.content_find_all(entry_id(9))) == expected
        assert storage.content_find_first(entry_id(9)) == expected[0]

    def test_a_revision_without_a_date_is_invisible_until_its_date_arrives(self, storage: Storage) -> None:
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {entry_id(1): {row(5, b"a"), row(6, b"a")}})
        storage.relation_add(RelationType.CNT_IN_DIR, {entry_id(1): {row(10, b"b")}})
        storage.relation_add(RelationType.DIR_IN_REV, {entry_id(10): {row(5, b"d")}})
        storage.revision_add({entry_id(5): RevisionData(None, entry_id(8))})
        assert storage.content_find_first(entry_id(1)) is None
        assert list(storage.content_find_all(entry_id(1))) == []
        storage.revision_add({entry_id(5): RevisionData(DAY, None)})
        assert storage.content_find_first(entry_id(1)) == occurrence(1, 5, DAY, b"a", None)
        assert [result.path for result in storage.content_find_all(entry_id(1))] == [b"a", b"d/b"]

    def test_limit_cuts_the_ordered_results(self, storage: Storage) -> None:
        storage.revision_add({entry_id(5): RevisionData(DAY, None)})
        paths = [b"%04d" % number for number in range(1_100)]
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {entry_id(1): {row(5, path) for path in paths}})
        for limit in (1, 2, 1_000, 1_001, 1_100, 1_101, 2**63 - 1, None):
            found = [result.path for result in storage.content_find_all(entry_id(1), limit=limit)]
            assert found == paths[:limit]

    def test_an_invalid_limit_is_refused(self, storage: Storage) -> None:
        invalid: list[Any] = [0, -1, 2**63, 1.5, "1", True]
        for limit in invalid:
            refused(InvalidValue.LIMIT, lambda: list(storage.content_find_all(entry_id(1), limit=limit)))  # noqa: B023

    def test_a_closed_generator_leaves_the_storage_usable(self, storage: Storage) -> None:
        storage.revision_add({entry_id(5): RevisionData(DAY, None)})
        paths = {b"%05d" % number for number in range(1_100)}
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {entry_id(1): {row(5, path) for path in paths}})
        for _ in range(12):  # more than there are connections, and listings of a gateway
            results = storage.content_find_all(entry_id(1))
            assert next(results).path == b"00000"
            results.close()
        assert len(list(storage.content_find_all(entry_id(1)))) == 1_100

    # Size

    def test_large_calls(self, storage: Storage) -> None:
        numbers = random.Random(7).sample(range(2**32), self.large_count)
        dates = {entry_id(number): later(number % 40_000) for number in numbers}
        assert storage.content_add(dates) is True
        assert (
            storage.content_add({entry_id(number): LATEST_DATE for number in numbers[: self.large_count // 10]}) is True
        )
        assert storage.content_get(dates) == dates
        rows = {entry_id(number): {row(number % 100, b"%d" % number)} for number in numbers}
        assert storage.relation_add(RelationType.CNT_EARLY_IN_REV, rows) is True
        assert storage.relation_get(RelationType.CNT_EARLY_IN_REV, rows) == rows
        ends = [entry_id(3), entry_id(4)]
        assert storage.relation_get(RelationType.CNT_EARLY_IN_REV, ends, reverse=True) == {
            src: found for src, found in rows.items() if {each.dst for each in found} & set(ends)
        }

    # Invalid arguments

    @pytest.mark.parametrize("kind", [InvalidValue.ID, InvalidValue.PATH, InvalidValue.URL, InvalidValue.DATE])
    def test_invalid_arguments_are_refused_and_nothing_is_stored(self, storage: Storage, kind: InvalidValue) -> None:
        for bad in INVALID[kind]:
            for call in calls_with(storage, kind, bad):
                refused(kind, call)
        assert state_of(storage) == state_of(InMemoryProvenanceStorage())

    def test_unknown_relations_and_entities_are_refused(self, storage: Storage) -> None:
        unknown: list[Any] = ["no_such_relation", "", None]
        for bad in unknown:
            refused(InvalidValue.ENUM, partial(storage.relation_add, bad, {}))
            refused(InvalidValue.ENUM, partial(storage.relation_get, bad, []))
            refused(InvalidValue.ENUM, partial(storage.relation_get_all, bad))
            refused(InvalidValue.ENUM, partial(storage.entity_get_all, bad))

    # Properties

    @PROPERTY
    @given(sent=st.lists(writes(registers=True), max_size=6), again=st.randoms(use_true_random=False))
    def test_writes_in_any_order_and_repeated_end_as_in_the_reference(
        self, storage: Storage, sent: list[Write], again: random.Random
    ) -> None:
        """That the order does not matter, but for registers, is proven of the reference (test_storages.py)."""
        scope = example_scope()
        reference = InMemoryProvenanceStorage()
        for write in shuffled(sent, again):
            apply(reference, write, scope)
            apply(storage, write, scope)
        assert state_of(storage, scope) == state_of(reference, scope)


def shuffled(sent: list[Write], again: random.Random) -> list[Write]:
    """Returns writes in another order, half of them twice."""
    found = [*sent, *again.sample(sent, len(sent) // 2)]
    again.shuffle(found)
    return found


def later(days: int) -> datetime:
    return DAY + timedelta(days=days)


def occurrence(content: int, revision: int, date: datetime, path: bytes, origin: str | None) -> ProvenanceResult:
    return ProvenanceResult(entry_id(content), entry_id(revision), date, origin, path)


def calls_with(storage: Storage, kind: InvalidValue, bad: Any) -> Iterator[Callable[[], object]]:
    """Yields a call of every method that takes a kind of value, with a valid and an invalid one."""
    good, relation = entry_id(1), RelationType.CNT_IN_DIR
    match kind:
        case InvalidValue.ID:
            yield partial(storage.content_add, [good, bad])
            yield partial(storage.directory_add, {good: DAY, bad: DAY})
            yield partial(storage.revision_add, [good, bad])
            if bad is not None:
                yield partial(storage.revision_add, {good: RevisionData(DAY, bad)})
            yield partial(storage.origin_add, {good: "url", bad: "url"})
            yield partial(storage.relation_add, relation, {good: {RelationData(bad, b"")}})
            yield partial(storage.relation_add, relation, {bad: {row(1, b"")}})
            yield partial(storage.content_get, [good, bad])
            for get in (storage.directory_get, storage.revision_get, storage.origin_get):
                yield partial(get, [bad])
            yield partial(storage.relation_get, relation, [bad])
            yield partial(storage.content_find_first, bad)
            yield lambda: list(storage.content_find_all(bad))
        case InvalidValue.PATH:
            yield partial(storage.location_add, [b"good", bad])
            for relation in RelationType:
                if relation.has_path:
                    yield partial(storage.relation_add, relation, {good: {row(2, b"good"), row(2, bad)}})
                else:
                    yield partial(storage.relation_add, relation, {good: {row(2), row(3, b"")}})
        case InvalidValue.URL:
            yield partial(storage.origin_add, {good: "good", entry_id(2): bad})
        case InvalidValue.DATE:
            yield partial(storage.content_add, {good: DAY, entry_id(2): bad})
            yield partial(storage.directory_add, {good: DAY, entry_id(2): bad})
            yield partial(storage.revision_add, {good: RevisionData(bad, None)})


def refused(kind: InvalidValue, call: Callable[[], object]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        call()
    assert caught.value.kind is kind
