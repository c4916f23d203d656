"""A walk of every revision of a repository, read by git itself: what an index of it must answer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Occurrence(NamedTuple):
    """A content in a revision; sorts as first occurrences are sought."""

    date: int
    revision: bytes
    path: bytes


def brute_force(repository: Path) -> dict[bytes, set[Occurrence]]:
    """Returns every occurrence of each content, in all commits that `git rev-list --all` names."""
    with _Trees(repository) as trees:
        found: dict[bytes, set[Occurrence]] = {}
        for line in _git(repository, "log", "--all", "--format=%H %at %T").splitlines():
            revision, date, root = line.decode().split()
            for content, path in trees.paths(root):
                found.setdefault(content, set()).add(Occurrence(int(date), bytes.fromhex(revision), path))
    return found


class _Trees:
    """Reads trees from one `git cat-file --batch`."""

    def __init__(self, repository: Path) -> None:
        self._process = subprocess.Popen(
            ["git", "-C", str(repository), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._paths: dict[str, list[tuple[bytes, bytes]]] = {}

    def __enter__(self) -> _Trees:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def paths(self, tree: str) -> list[tuple[bytes, bytes]]:
        """Returns content and path of everything below a tree."""
        if tree not in self._paths:
            found: list[tuple[bytes, bytes]] = []
            for mode, name, entry in self._entries(tree):
                if mode == b"40000":
                    found.extend((content, name + b"/" + path) for content, path in self.paths(entry.hex()))
                elif mode != b"160000":
                    found.append((entry, name))
            self._paths[tree] = found
        return self._paths[tree]

    def _entries(self, tree: str) -> Iterator[tuple[bytes, bytes, bytes]]:
        body = self._read(tree)
        while body:
            head, _, rest = body.partition(b"\0")
            mode, _, name = head.partition(b" ")
            yield mode, name, rest[:20]
            body = rest[20:]

    def _read(self, tree: str) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(tree.encode() + b"\n")
        self._process.stdin.flush()
        _, kind, size = self._process.stdout.readline().split()
        assert kind == b"tree"
        return self._process.stdout.read(int(size) + 1)[:-1]


def _git(repository: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(repository), *arguments], check=True, capture_output=True).stdout
