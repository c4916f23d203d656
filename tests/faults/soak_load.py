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

_IDS_COUNT: Final = 4_000
_CALL_MAX_ENTRIES: Final = 2_000
_PAUSE_MAX_S: Final = 0.1
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class Tally:
    """How the calls of the soak ended. Thread-safe.

    Attributes:
        calls: by method.
        attempted_count, acked_count: entries of writes that were sent, and of those that were said to be committed.
        declined: writes that returned False, and calls that raised what may be tried again, by kind.
        failures: whatever else was raised or is wrong, each of which fails the soak.
        longest_s: the longest call.
    """

    calls: Counter[str] = field(default_factory=Counter)
    attempted_count: int = 0
    acked_count: int = 0
    declined: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def run(self, name: str, call: Callable[[], Any]) -> Any:
        """Returns what a call returns, and counts it; None where it raised."""
        began_s = time.monotonic()
        result, declined, failure = None, None, None
        try:
            result = call()
        except RetryableStorageError as error:
            declined = f"{name.partition(' ')[0]}: {type(error).__name__}"
        except Exception as error:  # noqa: BLE001 - it is told at the end, with its kind
            failure = f"{name}: {error!r}"
        with self._lock:
            self.calls[name] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)
            self.declined.update([declined] if declined else [])
            self.failures += [failure] if failure else []
        return result

    def count_write(self, entry_count: int, done: bool | None) -> None:
        """Counts the entries of a write, which returned `done` or raised (None)."""
        with self._lock:
            self.attempted_count += entry_count
            self.acked_count += entry_count if done else 0
            self.declined.update(["write: False"] if done is False else [])

    def fail(self, text: str) -> None:
        """Notes that something is wrong."""
        with self._lock:
            self.failures.append(text)


class Client(threading.Thread):
    """Writes and reads at random through several storages, one call after another, until it is told to stop.

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
                self._read(storage)

    def _write(self, storage: ProvenanceStorageInterface) -> None:
        method, *arguments = self._random.choice(_WRITES)(self._random)
        entry_count = sum(map(len, arguments[1].values())) if method == "relation_add" else len(arguments[0])
        done = self._tally.run(f"write {method}", lambda: self._checker.write(storage, method, *arguments))
        self._tally.count_write(entry_count, done)
        if done and self._random.random() < 0.5:
            self._check_seen(method, arguments)

    def _check_seen(self, method: str, arguments: Sequence[Any]) -> None:
        # Through any gateway: a read that starts after an ack sees the write.
        storage = self._random.choice(self._storages)
        if method in ("content_add", "directory_add"):
            sent = {id: date for id, date in arguments[0].items() if date is not None}
            read = storage.content_get if method == "content_add" else storage.directory_get
            found = self._tally.run(f"read {method} again", lambda: read(sent))
            late = [id for id, date in sent.items() if found is not None and not found.get(id, _FAR) <= date]
        elif method == "relation_add":
            relation, rows = arguments
            found = self._tally.run(f"read {method} again", lambda: storage.relation_get(relation, rows))
            late = [id for id, some in rows.items() if found is not None and not some <= found.get(id, set())]
        else:
            return
        if late:
            self._tally.fail(f"{method}: {len(late)} acked entries are not read, for example {late[0].hex()}")

    def _read(self, storage: ProvenanceStorageInterface) -> None:
        name, read = self._random.choice(_READS)
        self._tally.run(f"read {name}", lambda: read(storage, self._random))


def _id(kind: str, number: int) -> Id:
    # Spread over all ranges, and the same ones for all clients: they write over each other.
    return bytes([number % 256]) + f"{kind:>11}{number:08}".encode()


_CONTENTS: Final = [_id("content", number) for number in range(_IDS_COUNT)]
_DIRECTORIES: Final = [_id("directory", number) for number in range(_IDS_COUNT)]
_REVISIONS: Final = [_id("revision", number) for number in range(_IDS_COUNT)]
_ORIGINS: Final = [_id("origin", number) for number in range(_IDS_COUNT // 10)]
_PREFERRED: Final = [None, *_ORIGINS]
_PATHS: Final[list[bytes | None]] = [b"path/%d" % number for number in range(_IDS_COUNT)]
_DATES: Final = [None, *(_EPOCH + timedelta(days=number) for number in range(1_000))]
_FAR: Final = datetime.max.replace(tzinfo=UTC)

_SHARED: Final = {"content": _CONTENTS, "directory": _DIRECTORIES, "revision": _REVISIONS, "origin": _ORIGINS}

# Numbers of what is written once.
_NEW: Final = itertools.count(1_000_000)


def _some(drawn: random.Random, of: Sequence[Any]) -> list[Any]:
    """Returns some of a pool: often few, seldom many."""
    return drawn.sample(of, min(len(of), int(_CALL_MAX_ENTRIES ** drawn.random())))


def _written(drawn: random.Random, kind: str) -> list[Id]:
    """Returns ids to write: some of those that all clients share, and a few that nobody writes again.

    The first meet in the database. Without the second, what is lost would be hidden by a later write of the same.
    """
    return [*_some(drawn, _SHARED[kind]), *(_id(kind, next(_NEW)) for _ in range(drawn.randint(1, 4)))]


def _dated(drawn: random.Random, kind: str) -> dict[Id, datetime | None]:
    return {id: drawn.choice(_DATES) for id in _written(drawn, kind)}


def _revisions(drawn: random.Random) -> dict[Id, RevisionData]:
    return {id: RevisionData(drawn.choice(_DATES), drawn.choice(_PREFERRED)) for id in _written(drawn, "revision")}


def _rows(drawn: random.Random) -> tuple[str, RelationType, dict[Id, set[RelationData]]]:
    relation = drawn.choice(list(RelationType))
    destinations = _SHARED[relation.destination]
    paths = _PATHS if relation.has_path else [None]
    return (
        "relation_add",
        relation,
        {
            src: {RelationData(drawn.choice(destinations), drawn.choice(paths)) for _ in range(drawn.randint(1, 2))}
            for src in _written(drawn, relation.source)
        },
    )


_WRITES: Final[Sequence[Callable[[random.Random], tuple[Any, ...]]]] = (
    lambda drawn: ("content_add", _dated(drawn, "content")),
    lambda drawn: ("directory_add", _dated(drawn, "directory")),
    lambda drawn: ("location_add", {b"new/%d" % next(_NEW), *_some(drawn, _PATHS)}),
    lambda drawn: ("origin_add", {id: f"https://{drawn.randrange(3)}.example" for id in _written(drawn, "origin")}),
    lambda drawn: ("revision_add", _revisions(drawn)),
    _rows,
)

_READS: Final[Sequence[tuple[str, Callable[[ProvenanceStorageInterface, random.Random], Any]]]] = (
    ("content_get", lambda storage, drawn: storage.content_get(_some(drawn, _CONTENTS))),
    ("revision_get", lambda storage, drawn: storage.revision_get(_some(drawn, _REVISIONS))),
    ("origin_get", lambda storage, drawn: storage.origin_get(_some(drawn, _ORIGINS))),
    (
        "relation_get",
        lambda storage, drawn: storage.relation_get(RelationType.CNT_IN_DIR, _some(drawn, _DIRECTORIES), reverse=True),
    ),
    ("content_find_first", lambda storage, drawn: storage.content_find_first(drawn.choice(_CONTENTS))),
    ("content_find_all", lambda storage, drawn: _first_of_all(storage, drawn)),
    ("entity_get_all", lambda storage, drawn: storage.entity_get_all(drawn.choice(list(EntityType)))),
    ("with_path", lambda storage, drawn: storage.with_path()),
)


def _first_of_all(storage: ProvenanceStorageInterface, drawn: random.Random) -> None:
    # Now and then the answer is not read to its end.
    wanted = drawn.choice([1, 1_000_000])
    occurrences = storage.content_find_all(drawn.choice(_CONTENTS))
    try:
        for _ in zip(range(wanted), occurrences, strict=False):
            pass
    finally:
        occurrences.close()
