"""Values, and random writes, for properties of storages; and the state that they leave."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import EntityType, Id, Path, RelationData, RelationType, RevisionData
from tests.support.entries import entry_id

DAY: Final = datetime(2015, 6, 7, 8, 9, 10, 123_456, tzinfo=UTC)
EARLIEST_DATE: Final = datetime.min.replace(tzinfo=UTC)
LATEST_DATE: Final = datetime.max.replace(tzinfo=UTC)

ODD_PATHS: Final = [
    b"",
    b".",
    b"a/b c/d",
    b"\xff\xfe not utf-8 \x80",
    "ünïcode/\U0001f600".encode(),
    b"new\nline\r\ttab\x01\x7f",
    b"{\"quo'tes\\\\,}%s NULL \\N",
    b"NULL",
    b"x" * 31,
    b"x" * 32,
    b"x" * 33,
    b"x" * 2705,
    b"x" * 4096,
    b"x" * 4095 + b"y",
]


def row(dst: int, path: Path | None = None) -> RelationData:
    """Returns a row of a relation, to the id of a number."""
    return RelationData(entry_id(dst), path)


@dataclass
class Scope:
    """The few ids and the paths of one example of a property; no other example uses them."""

    number: int
    ids: list[Id] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = [self.id(number) for number in range(6)]

    def id(self, number: int) -> Id:
        """Returns one of the scope's ids."""
        return hashlib.sha1(b"%d %d" % (self.number, number)).digest()

    def path(self, path: Path) -> Path:
        """Returns a path that is the scope's own."""
        return b"%d:" % self.number + path

    def owns_path(self, path: Path) -> bool:
        """Returns whether a path is one of the scope's."""
        return path.startswith(b"%d:" % self.number)

    def registers_of(self, writes: Iterable[Write]) -> tuple[dict[Id, set[str]], dict[Id, set[Id]]]:
        """Returns the URLs sent for each origin, and the preferred origins sent for each revision."""
        urls: dict[Id, set[str]] = {}
        preferred: dict[Id, set[Id]] = {}
        for write in writes:
            for number, url in write.urls.items():
                urls.setdefault(self.id(number), set()).add(url)
            for number, (_, origin) in write.revisions.items():
                if origin is not None:
                    preferred.setdefault(self.id(number), set()).add(self.id(origin))
        return urls, preferred


_SCOPES: Final = itertools.count()


def example_scope() -> Scope:
    """Returns a new scope."""
    return Scope(next(_SCOPES))


T = TypeVar("T")


@dataclass(frozen=True)
class Write:
    """One call of each write method, with the numbers of a scope's ids in the place of ids."""

    contents: dict[int, datetime | None] = field(default_factory=dict)
    directories: dict[int, datetime | None] = field(default_factory=dict)
    revisions: dict[int, tuple[datetime | None, int | None]] = field(default_factory=dict)
    urls: dict[int, str] = field(default_factory=dict)
    paths: frozenset[bytes] = frozenset()
    relations: dict[RelationType, set[tuple[int, int, bytes]]] = field(default_factory=dict)


def writes(registers: bool) -> st.SearchStrategy[Write]:
    """Returns a strategy of writes.

    Args:
        registers: whether different URLs and preferred origins meet. Otherwise the order of writes does not matter.
    """
    numbers = st.integers(0, 5)
    date = st.none() | st.datetimes(timezones=st.just(UTC)) | st.integers(0, 3).map(_close_date)
    dates = st.dictionaries(numbers, date, max_size=4)
    origin = st.none() | (numbers if registers else st.just(0))
    url = st.sampled_from(["a", "b", "c"]) if registers else st.just("a")
    path = st.sampled_from(ODD_PATHS[:6]) | st.binary(max_size=40).map(lambda path: path.replace(b"\0", b"\1"))
    rows = st.sets(st.tuples(numbers, numbers, path), max_size=4)
    return st.builds(
        Write,
        contents=dates,
        directories=dates,
        revisions=st.dictionaries(numbers, st.tuples(date, origin), max_size=4),
        urls=st.dictionaries(numbers, url, max_size=3),
        paths=st.frozensets(path, max_size=3),
        relations=st.dictionaries(st.sampled_from(RelationType), rows, max_size=3),
    )


def apply(storage: ProvenanceStorageInterface, write: Write, scope: Scope) -> None:
    """Makes the calls of a write."""
    done = [
        storage.content_add({scope.id(number): date for number, date in write.contents.items()}),
        storage.directory_add({scope.id(number): date for number, date in write.directories.items()}),
        storage.revision_add(
            {
                scope.id(number): RevisionData(date, None if origin is None else scope.id(origin))
                for number, (date, origin) in write.revisions.items()
            }
        ),
        storage.origin_add({scope.id(number): url for number, url in write.urls.items()}),
        storage.location_add([scope.path(path) for path in write.paths]),
    ]
    for relation, rows in write.relations.items():
        data: dict[bytes, set[RelationData]] = {}
        for src, dst, path in rows:
            kept = scope.path(path) if relation.has_path else None
            data.setdefault(scope.id(src), set()).add(RelationData(scope.id(dst), kept))
        done.append(storage.relation_add(relation, data))
    assert all(done)


def state_of(
    storage: ProvenanceStorageInterface, scope: Scope | None = None, occurrences_of: Collection[Id] | None = None
) -> dict[str, Any]:
    """Returns the content of a storage: the answers of all reads, for the ids of a scope or for all.

    Args:
        storage: an open storage.
        scope: the scope; all ids if None.
        occurrences_of: the contents whose occurrences are included; all contents if None.
    """
    entities = {entity: storage.entity_get_all(entity) for entity in EntityType}
    relations = {relation: storage.relation_get_all(relation) for relation in RelationType}
    locations = storage.location_get_all()
    if scope is not None:
        entities = {entity: ids & set(scope.ids) for entity, ids in entities.items()}
        relations = {relation: _restricted(rows, scope.ids) for relation, rows in relations.items()}
        locations = {path for path in locations if scope.owns_path(path)}
    contents = entities[EntityType.CONTENT]
    return {
        "entities": entities,
        "relations": relations,
        "by_source": {relation: storage.relation_get(relation, list(rows)) for relation, rows in relations.items()},
        "by_destination": {
            relation: storage.relation_get(relation, _destinations(rows.values()), reverse=True)
            for relation, rows in relations.items()
        },
        "locations": locations,
        "contents": storage.content_get(contents),
        "directories": storage.directory_get(entities[EntityType.DIRECTORY]),
        "revisions": storage.revision_get(entities[EntityType.REVISION]),
        "origins": storage.origin_get(entities[EntityType.ORIGIN]),
        "first": {content: storage.content_find_first(content) for content in contents},
        "all": {
            content: list(storage.content_find_all(content))
            for content in (contents if occurrences_of is None else occurrences_of)
        },
    }


def _close_date(number: int) -> datetime:
    return datetime(2020, 1, 1, microsecond=number, tzinfo=UTC)


def _restricted(rows: dict[bytes, T], ids: Iterable[bytes]) -> dict[bytes, T]:
    return {entry: rows[entry] for entry in ids if entry in rows}


def _destinations(rows: Iterable[set[RelationData]]) -> set[bytes]:
    return {row.dst for some in rows for row in some}
