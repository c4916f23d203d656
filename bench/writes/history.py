"""A real history: a repository to index, and the calls that its indexing makes."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Final

from bench.writes.loads import Write
from provgate_client.git import index_repository
from provgate_storage import ProvenanceStorageInterface, RelationType

_CLONE: Final = Path(__file__).resolve().parents[2]
_DATA: Final = _CLONE.parent / "shared" / "data"
_NAME: Final = "pika"
_CALL_SOURCES: Final = 500

URL: Final = "https://example.org/history.git"


class Recorder:
    """A storage that records all writes.

    Attributes:
        writes: the calls, in their order.
    """

    def __init__(self, storage: ProvenanceStorageInterface) -> None:
        self._storage = storage
        self.writes: list[Write] = []

    def __getattr__(self, name: str) -> Any:
        if name == "relation_add":
            return self._relation_add
        return partial(self._add, name.removesuffix("_add")) if name.endswith("_add") else getattr(self._storage, name)

    def _relation_add(self, relation: RelationType, data: Mapping[bytes, Any]) -> bool:
        self.writes.append(Write(relation, data, sum(map(len, data.values()))))
        return self._storage.relation_add(relation, data)

    def _add(self, table: str, data: Any) -> bool:
        self.writes.append(Write(table, data, len(data)))
        done: bool = getattr(self._storage, f"{table}_add")(data)
        return done


def repository(directory: Path) -> Path:
    """Returns a bare repository of pika's history, made in a directory; the clone itself without the sample data."""
    if not _DATA.is_dir():
        return _CLONE
    target = directory / f"{_NAME}.git"
    if not target.exists():
        skeleton = _DATA / f"{_NAME}.skeleton.msgpack.xz"
        subprocess.run(
            [sys.executable, _DATA / "skeleton_to_git.py", skeleton, target], check=True, stdout=subprocess.DEVNULL
        )
    return target


def revision_count(repository: Path) -> int:
    """Returns the number of commits that any ref reaches."""
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), "rev-list", "--all", "--count"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def record(history: Path, storage: ProvenanceStorageInterface, file: Path) -> int:
    """Indexes a repository and saves its calls, in small pieces, to a file; returns the number of entries.

    Args:
        history: the repository.
        storage: an open and empty storage to index into.
        file: the file.
    """
    recorder: Any = Recorder(storage)
    index_repository(history, recorder, URL, any_owner=True)
    writes = [piece for write in recorder.writes for piece in _cut(write)]
    file.write_bytes(pickle.dumps(writes))
    return sum(write.count for write in writes)


def mixed(file: Path, source: random.Random, count: int) -> list[Write]:
    """Returns recorded calls in random order, with at most `count` entries together."""
    writes: list[Write] = pickle.loads(file.read_bytes())
    source.shuffle(writes)
    sums = accumulate(write.count for write in writes)
    return [write for write, written in zip(writes, sums, strict=True) if written <= count]


def _cut(write: Write) -> Iterator[Write]:
    items = iter(write.data.items())
    while piece := dict(islice(items, _CALL_SOURCES)):
        is_relation = write.table in tuple(RelationType)
        yield Write(write.table, piece, sum(map(len, piece.values())) if is_relation else len(piece))
