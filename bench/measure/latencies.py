"""Latencies of single calls, from the call to its return."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Final

from bench.report.results import Latency
from bench.session import Session
from bench.subjects import DIRECT, GATEWAY, LIMIT
from bench.writes import loads
from bench.writes.loads import Write
from provgate_storage import (
    EntityType,
    ProvenanceStorageInterface,
    RelationData,
    RelationType,
    RevisionData,
    get_provenance_storage,
)

_BLOCKS: Final = 10
_WARM_UP: Final = 20
_DATE: Final = datetime(2005, 4, 7, tzinfo=UTC)
_CONTENTS: Final = 100_000
_ASKED: Final = 1_000
_OCCURRENCES: Final = 17
_FOUND: Final = 50

Call = Callable[[], object]

ONE_ENTRY: Final = "one-entry"
CONTENT_GET: Final = "content-get"
FIND_FIRST: Final = "find-first"
FIND_ALL: Final = "find-all"


def measure_single_writes(session: Session) -> None:
    """Writes contents one at a time."""
    with ExitStack() as opened:
        calls: dict[str, Call] = {}
        for name in (GATEWAY, DIRECT, LIMIT):
            subject = session.subjects.get(name)
            subject.database.empty()
            subject.database.rest()
            calls[name] = _adds_one(opened.enter_context(subject.writers[0].opened()))
        session.results.latencies += _interleaved(
            ONE_ENTRY, "one content, call to return", calls, session.sizes.count(100) * _BLOCKS
        )


def measure_reads(session: Session) -> None:
    """Reads by id, the earliest occurrence, and all of 17, from tables of the size of a small index."""
    ids, found = _fill(session)
    choose = random.Random(0)
    with ExitStack() as opened:
        storages = {name: opened.enter_context(_storage(session, name)) for name in (GATEWAY, DIRECT)}
        kinds: list[tuple[str, str, Callable[[ProvenanceStorageInterface], Call], int]] = [
            (CONTENT_GET, "content_get of 1,000 ids", lambda storage: _gets(storage, ids, choose), 20),
            (FIND_FIRST, "content_find_first", lambda storage: _finds_first(storage, found, choose), 50),
            (FIND_ALL, "content_find_all, 17 rows", lambda storage: _finds_all(storage, found, choose), 50),
        ]
        for name, title, reads, usual in kinds:
            calls = {subject: reads(storage) for subject, storage in storages.items()}
            session.results.latencies += _interleaved(name, title, calls, session.sizes.count(usual) * _BLOCKS)


def _interleaved(name: str, title: str, calls: Mapping[str, Call], count: int) -> list[Latency]:
    """Makes `count` calls of each subject, in alternating blocks."""
    taken: dict[str, list[float]] = {subject: [] for subject in calls}
    for call in calls.values():
        _timed(call, _WARM_UP)
    for _ in range(_BLOCKS):
        for subject, call in calls.items():
            taken[subject] += _timed(call, count // _BLOCKS)
    return [Latency(name, title, subject, sorted(taken_ms)) for subject, taken_ms in taken.items()]


def _timed(call: Call, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def _adds_one(write: Callable[[Write], None]) -> Call:
    return lambda: write(Write(EntityType.CONTENT, {os.urandom(20): _DATE}, 1))


def _gets(storage: ProvenanceStorageInterface, ids: Sequence[bytes], choose: random.Random) -> Call:
    def get() -> None:
        _expect(len(storage.content_get(choose.sample(ids, _ASKED))), _ASKED)

    return get


def _finds_first(storage: ProvenanceStorageInterface, found: Sequence[bytes], choose: random.Random) -> Call:
    def find() -> None:
        _expect(storage.content_find_first(choose.choice(found)) is not None, True)

    return find


def _finds_all(storage: ProvenanceStorageInterface, found: Sequence[bytes], choose: random.Random) -> Call:
    def find() -> None:
        _expect(len([*storage.content_find_all(choose.choice(found))]), _OCCURRENCES)

    return find


def _expect(seen: int, expected: int) -> None:
    if seen != expected:
        raise RuntimeError(f"a read gave {seen} and not {expected}")


def _storage(session: Session, name: str) -> ProvenanceStorageInterface:
    config = {"cls": "grpc", "url": session.stack.address}
    return get_provenance_storage(**config if name == GATEWAY else session.subjects.get(name).database.storage_config)


def _fill(session: Session) -> tuple[list[bytes], list[bytes]]:
    """Fills the tables of gateway and direct; returns all contents, and the contents with 17 occurrences."""
    source = random.Random(os.urandom(8))
    contents = loads.contents(source, _CONTENTS)
    found = [source.randbytes(20) for _ in range(_FOUND)]
    for name in (GATEWAY, DIRECT):
        database = session.subjects.get(name).database
        database.empty()
        with get_provenance_storage(**database.storage_config) as storage:
            loads.add(storage, contents)
            loads.add(storage, loads.relations(RelationType.CNT_EARLY_IN_REV, source, _CONTENTS))
            for number in range(_OCCURRENCES):
                _add_revision(storage, source, found, number)
        database.gather_statistics()
        database.rest()
    return list(contents.data), found


def _add_revision(
    storage: ProvenanceStorageInterface, source: random.Random, found: Sequence[bytes], number: int
) -> None:
    revision, origin = source.randbytes(20), source.randbytes(20)
    rows = {content: {RelationData(revision, b"src/library/component_%d.c" % number)} for content in found}
    storage.origin_add({origin: f"https://example.org/project-{number}.git"})
    storage.relation_add(RelationType.CNT_EARLY_IN_REV, rows)
    storage.revision_add({revision: RevisionData(_DATE + timedelta(days=number), origin)})
