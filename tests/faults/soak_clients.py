"""The load of the soak: clients that write and read at random, and note how each call ended."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from provgate_storage import ProvenanceStorageInterface, RelationData, RelationType, RevisionData
from provgate_storage.errors import RetryableStorageError
from provgate_storage.model import EntityType, Id
from tests.support.loss_checker import Checker

_ID_COUNT: Final = 4_000
_CALL_MAX_ENTRIES: Final = 2_000
_PAUSE_MAX_S: Final = 0.1
_FAR: Final = datetime.max.replace(tzinfo=UTC)


def _id(kind: str, number: int) -> Id:
    # Spread over all ranges, and the same ones for all clients: they write over each other.
    return bytes([number % 256]) + f"{kind:>11}{number:08}".encode()


_IDS: Final = {
    kind: [_id(kind, number) for number in range(_ID_COUNT)] for kind in ("content", "directory", "revision")
}
_IDS["origin"] = [_id("origin", number) for number in range(_ID_COUNT // 10)]
_PATHS: Final[list[bytes | None]] = [b"path/%d" % number for number in range(_ID_COUNT)]
_DATES: Final = [None, *(datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(1_000))]

# Numbers of what is written once.
_NEW: Final = itertools.count(1_000_000)


@dataclass
class Tally:
    """How the calls of the soak ended. Thread-safe.

    Attributes:
        calls: by method.
        attempted_count, acked_count: entries of writes that were sent, and of those that were acked.
        declined: writes that returned False, and calls that raised an error that may be retried, by kind.
        failures: all other errors and findings; each of them fails the soak.
        longest_s: the longest call.
    """

    calls: Counter[str] = field(default_factory=Counter)
    attempted_count: int = 0
    acked_count: int = 0
    declined: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Returns what a call returns, and counts it; None where it raised."""
        began_s = time.monotonic()
        result, declined, failures = None, Counter[str](), list[str]()
        try:
            result = call(*arguments)
        except RetryableStorageError as error:
            declined[f"{name.partition(' ')[0]}: {type(error).__name__}"] += 1
        except Exception as error:  # noqa: BLE001 - it fails the soak in the end
            failures.append(f"{name}: {error!r}")
        with self._lock:
            self.calls[name] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)
            self.declined += declined
            self.failures += failures
        return result

    def count_write(self, entry_count: int, done: bool | None) -> None:
        """Counts the entries of a write, which returned `done` or raised (None)."""
        with self._lock:
            self.attempted_count += entry_count
            self.acked_count += entry_count if done else 0
            self.declined["write: False"] += done is False

    def fail(self, text: str) -> None:
        """Notes that something is wrong."""
        with self._lock:
            self.failures.append(text)


class Client(threading.Thread):
    """Writes and reads at random through several storages, one call after another, until it is stopped.

    Args:
        seed: of what it does.
        storages: open ones.
        checker: records the writes.
        tally: counts the calls.
        stopping: ends it after the call that it is in.
    """

    def __init__(
        self,
        seed: str,
        storages: Sequence[ProvenanceStorageInterface],
        checker: Checker,
        tally: Tally,
        stopping: threading.Event,
    ) -> None:
        super().__init__(name=f"client {seed}", daemon=True)
        self._random = random.Random(seed)
        self._storages = storages
        self._checker = checker
        self._tally = tally
        self._stopping = stopping

    def run(self) -> None:
        while not self._stopping.wait(self._random.uniform(0, _PAUSE_MAX_S)):
            storage = self._random.choice(self._storages)
            if self._random.random() < 0.7:
                self._write(storage)
            else:
                name = self._random.choice(_READS)
                self._tally.run(f"read {name}", _read, name, storage, self._random)

    def _write(self, storage: ProvenanceStorageInterface) -> None:
        method, *arguments = _draw_write(self._random)
        entry_count = sum(map(len, arguments[1].values())) if method == "relation_add" else len(arguments[0])
        done = self._tally.run(f"write {method}", self._checker.write, storage, method, *arguments)
        self._tally.count_write(entry_count, done)
        if done and self._random.random() < 0.5:
            self._check_seen(method, arguments)

    def _check_seen(self, method: str, arguments: Sequence[Any]) -> None:
        # Through any gateway: a read that starts after an ack sees the write.
        storage = self._random.choice(self._storages)
        if method in ("content_add", "directory_add"):
            sent = {id: date for id, date in arguments[0].items() if date is not None}
            read = storage.content_get if method == "content_add" else storage.directory_get
            found = self._tally.run(f"read {method} again", read, sent)
            late = [id for id, date in sent.items() if found is not None and not found.get(id, _FAR) <= date]
        elif method == "relation_add":
            relation, rows = arguments
            found = self._tally.run(f"read {method} again", storage.relation_get, relation, rows)
            late = [id for id, some in rows.items() if found is not None and not some <= found.get(id, set())]
        else:
            return
        if late:
            self._tally.fail(f"{method}: {len(late)} acked entries are not read, for example {late[0].hex()}")


def _some(drawn: random.Random, pool: Sequence[Any]) -> list[Any]:
    """Returns some of a pool: often few, seldom many."""
    return drawn.sample(pool, min(len(pool), int(_CALL_MAX_ENTRIES ** drawn.random())))


def _written(drawn: random.Random, kind: str) -> list[Id]:
    """Returns ids to write: some of those that all clients share, and a few that nobody writes again.

    The shared ones meet in the database. Without the others, a later write of the same id would hide a loss.
    """
    return [*_some(drawn, _IDS[kind]), *(_id(kind, next(_NEW)) for _ in range(drawn.randint(1, 4)))]


def _draw_write(drawn: random.Random) -> tuple[Any, ...]:
    """Returns a write: method and arguments."""
    method = drawn.choice(
        ["content_add", "directory_add", "location_add", "origin_add", "revision_add", "relation_add"]
    )
    kind = method.removesuffix("_add")
    if kind == "location":
        return method, {b"new/%d" % next(_NEW), *_some(drawn, _PATHS)}
    if kind == "origin":
        return method, {id: f"https://{drawn.randrange(3)}.example" for id in _written(drawn, kind)}
    if kind == "revision":
        origins = [None, *_IDS["origin"]]
        return method, {id: RevisionData(drawn.choice(_DATES), drawn.choice(origins)) for id in _written(drawn, kind)}
    if kind != "relation":
        return method, {id: drawn.choice(_DATES) for id in _written(drawn, kind)}
    relation = drawn.choice(list(RelationType))
    destinations, paths = _IDS[relation.destination], _PATHS if relation.has_path else [None]
    rows = {
        src: {RelationData(drawn.choice(destinations), drawn.choice(paths)) for _ in range(drawn.randint(1, 2))}
        for src in _written(drawn, relation.source)
    }
    return method, relation, rows


_READS: Final = (
    "content_get",
    "revision_get",
    "origin_get",
    "relation_get",
    "content_find_first",
    "content_find_all",
    "entity_get_all",
    "with_path",
)


def _read(name: str, storage: ProvenanceStorageInterface, drawn: random.Random) -> object:
    match name:
        case "content_get" | "revision_get" | "origin_get":
            return getattr(storage, name)(_some(drawn, _IDS[name.removesuffix("_get")]))
        case "relation_get":
            return storage.relation_get(RelationType.CNT_IN_DIR, _some(drawn, _IDS["directory"]), reverse=True)
        case "content_find_first":
            return storage.content_find_first(drawn.choice(_IDS["content"]))
        case "content_find_all":
            # Now and then the answer is not read to its end.
            occurrences = storage.content_find_all(drawn.choice(_IDS["content"]))
            try:
                return list(itertools.islice(occurrences, drawn.choice([1, 1_000_000])))
            finally:
                occurrences.close()
        case "entity_get_all":
            return storage.entity_get_all(drawn.choice(list(EntityType)))
        case _:
            return storage.with_path()
