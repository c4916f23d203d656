"""Git repositories made object by object, and a walk over every revision of one, read by git itself."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True)
class Leaf:
    """An entry of a tree that is no directory."""

    id: bytes
    mode: int = 0o100644


Node: TypeAlias = "Leaf | Mapping[bytes, Node]"

SUBMODULE = Leaf(b"\x11" * 20, 0o160000)


def content(label: str, mode: int = 0o100644) -> Leaf:
    """Returns an entry for a content that exists nowhere."""
    return Leaf(hashlib.sha1(label.encode()).digest(), mode)


class RepositoryWriter:
    """A bare repository that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "objects").mkdir(parents=True)
        (path / "refs" / "heads").mkdir(parents=True)
        (path / "HEAD").write_text("ref: refs/heads/main\n")
        (path / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        self._refs = 0
        self.trees: dict[bytes, Mapping[bytes, Node]] = {}

    def tree(self, node: Mapping[bytes, Node]) -> bytes:
        for child in node.values():
            if not isinstance(child, Leaf):
                self.tree(child)
        tree = self.write(b"tree", tree_body(node))
        self.trees[tree] = node
        return tree

    def commit(self, root: bytes, date: object, parents: Iterable[bytes] = (), message: str = "") -> bytes:
        lines = [b"tree " + root.hex().encode(), *(b"parent " + parent.hex().encode() for parent in parents)]
        who = b"a > b <a@example.org> %s +0200" % str(date).encode()
        lines += [b"author " + who, b"committer c <c@example.org> 1 +0000", b"", message.encode()]
        return self.write(b"commit", b"\n".join(lines))

    def tag(self, target: bytes, kind: bytes = b"commit") -> bytes:
        return self.write(b"tag", b"object %s\ntype %s\ntag t\n\nt\n" % (target.hex().encode(), kind))

    def ref(self, target: bytes, name: str | None = None) -> None:
        self._refs += 1
        path = self.path / (name or f"refs/heads/h{self._refs}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(target.hex() + "\n")

    def write(self, kind: bytes, body: bytes) -> bytes:
        raw, digest = _raw(kind, body), object_id(kind, body)
        path = self.path / "objects" / digest.hex()[:2] / digest.hex()[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(raw, 1))
        return digest


def tree_body(node: Mapping[bytes, Node]) -> bytes:
    """Returns the bytes of a tree: its entries in git's order, in which a directory's name ends in a slash."""
    entries = []
    for name, child in node.items():
        mode, entry_id = (child.mode, child.id) if isinstance(child, Leaf) else (0o40000, tree_id(child))
        entries.append((name + b"/" * (mode == 0o40000), b"%o %s\0%s" % (mode, name, entry_id)))
    return b"".join(entry for _, entry in sorted(entries))


def tree_id(node: Mapping[bytes, Node]) -> bytes:
    return object_id(b"tree", tree_body(node))


def object_id(kind: bytes, body: bytes) -> bytes:
    return hashlib.sha1(_raw(kind, body)).digest()


def _raw(kind: bytes, body: bytes) -> bytes:
    return kind + b" %d\0" % len(body) + body


def paths(node: Mapping[bytes, Node], prefix: bytes = b"") -> Sequence[tuple[bytes, bytes]]:
    """Returns content and path of every content below a node, submodules left out."""
    found: list[tuple[bytes, bytes]] = []
    for name, child in node.items():
        if not isinstance(child, Leaf):
            found.extend(paths(child, prefix + name + b"/"))
        elif child.mode != 0o160000:
            found.append((child.id, prefix + name))
    return found


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
