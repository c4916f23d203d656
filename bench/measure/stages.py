"""CPU time of each stage of a write in our code, without servers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from bench.session import Session
from bench.writes import loads
from bench.writes.loads import Write
from provgate_broker.topology.policy import Operation, RangePolicy, WriteMethod
from provgate_broker.wire.package import decode_package
from provgate_broker.wire.rows import encode_rows
from provgate_client.adapter import messages as entries
from provgate_client.adapter.messages import EntryKind, check_entries, requests_of
from provgate_gateway.rpc import requests
from provgate_gateway.rpc.requests import MessageKind
from provgate_gateway.write.splitting import split
from provgate_runtime.program import collect_seldom
from provgate_storage import RelationType
from provgate_storage.postgresql.schema import TABLES
from provgate_storage.postgresql.writes import copy_document
from provgate_storage.rows.rows import merged

T = TypeVar("T")

_ENTRIES: Final = 30_000
_PACKAGE_ENTRIES: Final = 5_000
_BATCH_ENTRIES: Final = 10_000
_RUNS: Final = 9


@dataclass(frozen=True)
class _Way:
    """The stages of one kind of write."""

    write: Write
    kind: EntryKind[Any]
    entries: Iterable[Any]
    messages: MessageKind[Any]
    operation: Operation


def measure_stages(session: Session) -> None:
    """Measures contents, revisions and relations."""
    collect_seldom()
    for way in _ways():
        session.results.stages[way.write.table] = dict(_cpu_s_per_million(way))


def _ways() -> list[_Way]:
    source, relation = random.Random(1), RelationType.CNT_EARLY_IN_REV
    contents, revisions = loads.contents(source, _ENTRIES), loads.revisions(source, _ENTRIES)
    relations = loads.relations(relation, source, _ENTRIES)
    return [
        _way(contents, entries.CONTENT, contents.data.items(), requests.CONTENT_ADD),
        _way(revisions, entries.REVISION, revisions.data.items(), requests.REVISION_ADD),
        _Way(
            relations,
            entries.relation_kind(relation),
            entries.RelationRows(relations.data),
            requests.RELATION_ADD,
            Operation(WriteMethod.RELATION_ADD, relation),
        ),
    ]


def _way(write: Write, kind: EntryKind[Any], items: Iterable[Any], messages: MessageKind[Any]) -> _Way:
    return _Way(write, kind, items, messages, Operation(WriteMethod(kind.method)))


def _cpu_s_per_million(way: _Way) -> Mapping[str, float]:
    seen: dict[str, float] = {}

    def stage(name: str, do: Callable[[], T]) -> T:
        taken = []
        for _ in range(_RUNS):
            started = time.process_time()
            result = do()
            taken.append(time.process_time() - started)
        # The minimum: other processes only add to it.
        seen[name] = min(taken) / _ENTRIES * 1_000_000
        return result

    stage("client: check", lambda: check_entries(way.kind, way.entries))
    counted = stage("client: messages", lambda: list(requests_of(way.kind, way.entries, _ENTRIES)))
    bodies = stage("client: serialize", lambda: [message.SerializeToString() for _, message in counted])
    decoded = stage("gateway: parse", lambda: [way.messages.decode(body) for body in bodies])
    rows = stage("gateway: check", lambda: [row for message in decoded for row in way.messages.rows(message)])
    stage("gateway: encode", lambda: encode_rows(rows, way.operation))
    packages = stage("gateway: encode and split", lambda: split(way.operation, rows, RangePolicy(), _PACKAGE_ENTRIES))
    taken = stage("worker: decode", lambda: [r for p in packages for r in decode_package(p.body, way.operation)])
    batches = [taken[start : start + _BATCH_ENTRIES] for start in range(0, len(taken), _BATCH_ENTRIES)]
    table = TABLES[way.write.table]
    sorted_batches = stage("worker: merge and sort", lambda: [merged(table.name, batch) for batch in batches])
    types = [column_type for _, column_type in table.columns]
    stage(
        "worker: COPY document",
        lambda: [
            copy_document(types, [[row[index] for row in batch] for index in range(len(types))])
            for batch in sorted_batches
        ],
    )
    return seen
