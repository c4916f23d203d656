"""The check at the end of fault tests: everything acked is stored, and nothing is stored that nobody sent.

for every key:                   merge(all acked)  <=  what is held  <=  merge(all attempted)
for preferred origins and urls:  one of the values attempted; None only if none was
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from provgate_storage import EntityType, ProvenanceStorageInterface, RelationData, RelationType, RevisionData
from provgate_storage.model import Id
from tests.support.reference import InMemoryProvenanceStorage


@dataclass(frozen=True)
class Call:
    """A write that ended.

    Attributes:
        method: the method of the interface.
        arguments: its arguments.
        acked: whether it returned that all of it is committed.
        error: the raised error; None if it returned.
    """

    method: str
    arguments: tuple[Any, ...]
    acked: bool
    error: BaseException | None


@dataclass
class Checker:
    """Records writes through any storages and from any threads, and checks the stored state in the end.

    Attributes:
        calls: every write that ended, in the order of their ends.
    """

    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._acked = InMemoryProvenanceStorage()
        self._attempted = InMemoryProvenanceStorage()
        self._urls: dict[Id, set[str]] = {}
        self._preferred: dict[Id, set[Id]] = {}

    def write(self, storage: ProvenanceStorageInterface, method: str, *arguments: Any) -> bool:
        """Calls a write method of a storage, and records its arguments and how it ended. Raises what it raises."""
        self._note_attempt(method, arguments)
        error: BaseException | None = None
        acked: bool = False
        try:
            acked = getattr(storage, method)(*arguments)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._note_end(Call(method, arguments, acked, error))
        return acked

    def record(self, call: Call) -> None:
        """Records a write that was not made by a call of a storage."""
        self._note_attempt(call.method, call.arguments)
        self._note_end(call)

    def recording(self, storage: ProvenanceStorageInterface) -> Callable[..., bool]:
        """Returns `write` for one storage."""
        return lambda method, *arguments: self.write(storage, method, *arguments)

    def check(self, held: ProvenanceStorageInterface) -> None:
        """Compares the rows of an open storage with those acked and attempted. Fails the test if they do not agree."""
        for entity in EntityType:
            _check_sets(entity, *self._entities(entity, held))
        _check_sets("locations", *(s.location_get_all() for s in (self._acked, held, self._attempted)))
        for relation in RelationType:
            _check_sets(relation, *(_rows(s.relation_get_all(relation)) for s in (self._acked, held, self._attempted)))
        self._check_dates(held)
        self._check_registers(held)

    def _entities(self, entity: EntityType, held: ProvenanceStorageInterface) -> tuple[set[Id], set[Id], set[Id]]:
        acked, found, attempted = (s.entity_get_all(entity) for s in (self._acked, held, self._attempted))
        if entity is EntityType.ORIGIN:
            # Preferred origins are implied too, and any of those attempted may be the one that is held.
            added = self._acked.relation_get_all(RelationType.REV_IN_ORG).values()
            acked = set(self._acked.origin_get(acked)) | {row.dst for rows in added for row in rows}
            attempted = attempted.union(*self._preferred.values())
        return acked, found, attempted

    def _note_attempt(self, method: str, arguments: tuple[Any, ...]) -> None:
        with self._lock:
            getattr(self._attempted, method)(*arguments)
            if method == "origin_add":
                for origin, url in arguments[0].items():
                    self._urls.setdefault(origin, set()).add(url)
            if method == "revision_add" and isinstance(arguments[0], Mapping):
                for revision, data in arguments[0].items():
                    if data.origin is not None:
                        self._preferred.setdefault(revision, set()).add(data.origin)

    def _note_end(self, call: Call) -> None:
        with self._lock:
            self.calls.append(call)
            if call.acked:
                getattr(self._acked, call.method)(*call.arguments)

    def _check_dates(self, held: ProvenanceStorageInterface) -> None:
        readers: dict[EntityType, Callable[[ProvenanceStorageInterface, set[Id]], Mapping[Id, datetime | None]]] = {
            EntityType.CONTENT: lambda storage, ids: storage.content_get(ids),
            EntityType.DIRECTORY: lambda storage, ids: storage.directory_get(ids),
            EntityType.REVISION: lambda storage, ids: {id: d.date for id, d in storage.revision_get(ids).items()},
        }
        for entity, read in readers.items():
            ids = self._attempted.entity_get_all(entity)
            acked, found, attempted = (read(storage, ids) for storage in (self._acked, held, self._attempted))
            for id in ids:
                _check_date(f"{entity} {id.hex()}", acked.get(id), found.get(id), attempted.get(id))

    def _check_registers(self, held: ProvenanceStorageInterface) -> None:
        urls = held.origin_get(self._urls)
        acked_urls = self._acked.origin_get(self._urls)
        for origin, values in self._urls.items():
            _check_register(f"url of {origin.hex()}", origin in acked_urls, urls.get(origin), values)
        revisions = held.revision_get(self._preferred)
        acked_revisions = self._acked.revision_get(self._preferred)
        nothing = RevisionData(None, None)
        for revision, origins in self._preferred.items():
            acked = acked_revisions.get(revision, nothing).origin is not None
            found = revisions.get(revision, nothing).origin
            _check_register(f"preferred origin of {revision.hex()}", acked, found, origins)


def _rows(rows: Mapping[Id, set[RelationData]]) -> set[tuple[Id, RelationData]]:
    return {(src, row) for src, of_source in rows.items() for row in of_source}


def _check_sets(what: str, acked: set[Any], held: set[Any], attempted: set[Any]) -> None:
    lost, invented = acked - held, held - attempted
    assert not lost, f"{what}: {len(lost)} of {len(acked)} acked are not held, for example {next(iter(lost))!r}"
    assert not invented, f"{what}: {len(invented)} are held that nobody sent, for example {next(iter(invented))!r}"


def _check_date(what: str, acked: datetime | None, held: datetime | None, attempted: datetime | None) -> None:
    # Writes only ever make a date earlier: held is between the earliest attempted and the earliest acked.
    assert acked is None or (held is not None and held <= acked), f"{what}: {acked} is acked and {held} held"
    assert held is None or (attempted is not None and attempted <= held), f"{what}: {held} is held and nobody sent it"


def _check_register(what: str, acked: bool, held: object, attempted: set[Any]) -> None:
    assert held is not None or not acked, f"{what}: acked and not held"
    assert held is None or held in attempted, f"{what}: {held!r} is held and nobody sent it"
