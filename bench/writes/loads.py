"""The data of writes: calls of the storage interface, made from a seed before the clock starts."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from provgate_storage import EntityType, ProvenanceStorageInterface, RelationData, RelationType, RevisionData
from provgate_storage.rows.rows import LOCATION

_FIRST_DATE: Final = datetime(2005, 4, 7, tzinfo=UTC)
_SECONDS: Final = 600_000_000
_FILES_OF_REVISION: Final = 100

TABLES: Final = (*EntityType, LOCATION, *RelationType)
"""The names of all tables."""


@dataclass(frozen=True, slots=True)
class Write:
    """One call.

    Attributes:
        table: the name of an entity type or of a relation, or `LOCATION`.
        data: the argument of the interface.
        count: the number of its entries.
    """

    table: str
    data: Any
    count: int


def add(storage: ProvenanceStorageInterface, write: Write) -> None:
    """Makes a call.

    Raises:
        RuntimeError: the storage did not confirm that everything is committed.
    """
    if write.table in tuple(RelationType):
        done = storage.relation_add(RelationType(write.table), write.data)
    else:
        done = getattr(storage, f"{write.table}_add")(write.data)
    if not done:
        raise RuntimeError(f"{write.count} entries of {write.table} were not acked")


def contents(source: random.Random, count: int) -> Write:
    """New contents with dates."""
    return Write(EntityType.CONTENT, {_id(source): _date(source) for _ in range(count)}, count)


def directories(source: random.Random, count: int) -> Write:
    """New directories with dates."""
    return Write(EntityType.DIRECTORY, {_id(source): _date(source) for _ in range(count)}, count)


def locations(source: random.Random, count: int) -> Write:
    """New paths."""
    return Write(LOCATION, {b"%s-%d" % (_path(n), source.getrandbits(48)) for n in range(count)}, count)


def origins(source: random.Random, count: int) -> Write:
    """New origins with their URLs."""
    urls = [f"https://example.org/{source.getrandbits(64):x}/project-{n}.git" for n in range(count)]
    ids = [hashlib.sha1(url.encode(), usedforsecurity=False).digest() for url in urls]
    return Write(EntityType.ORIGIN, dict(zip(ids, urls, strict=True)), count)


def revisions(source: random.Random, count: int) -> Write:
    """New revisions with dates, a hundred to an origin."""
    data, origin = {}, b""
    for n in range(count):
        if n % 100 == 0:
            origin = _id(source)
        data[_id(source)] = RevisionData(_date(source), origin)
    return Write(EntityType.REVISION, data, count)


def relations(relation: RelationType, source: random.Random, count: int) -> Write:
    """New rows of a relation, a hundred sources to a destination, as files are to a revision."""
    rows, destination = {}, b""
    for n in range(count):
        if n % _FILES_OF_REVISION == 0:
            destination = _id(source)
        rows[_id(source)] = {RelationData(destination, _path(n) if relation.has_path else None)}
    return Write(relation, rows, count)


def _id(source: random.Random) -> bytes:
    return source.randbytes(20)


def _date(source: random.Random) -> datetime:
    # As git has them: whole seconds.
    return _FIRST_DATE + timedelta(seconds=source.randrange(_SECONDS))


def _path(number: int) -> bytes:
    return b"src/library_%d/component_%d.c" % (number % 7, number % 100)
