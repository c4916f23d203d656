"""Parses git's objects: commits, annotated tags and trees (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).

The git library is not used for that, because it refuses a whole commit, with its parents, if it cannot read the date.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from provgate_client.git.settings import RepositoryError
from provgate_storage.model import Id

_COMMIT: Final = re.compile(rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)(?:author ([^\n]*)\n)?")
_AUTHOR_TIME: Final = re.compile(rb" ?(-?[0-9]{1,19})(?: |$)")
_TAG: Final = re.compile(rb"object ([0-9a-f]{40})\ntype (commit|tag|tree|blob)\n")
_TREE_ENTRY: Final = re.compile(rb"([0-7]+) ([^\0]*)\0(.{20})", re.DOTALL)

_DIRECTORY_MODE: Final = 0o040000
_SUBMODULE_MODE: Final = 0o160000


class Commit(NamedTuple):
    """The parts of a commit that the index needs.

    Attributes:
        root: the id of its tree.
        parents: the ids of its parents, present or not.
        author_time_s: seconds since 1970 in UTC, negative before; None if it cannot be read.
    """

    root: Id
    parents: tuple[Id, ...]
    author_time_s: int | None


class Tag(NamedTuple):
    """The object that an annotated tag names: its id, and its type (commit, tag, tree or blob)."""

    target: Id
    target_type: str


class Tree(NamedTuple):
    """The entries of a directory, without submodules.

    Attributes:
        contents: name and id of each file and symbolic link.
        directories: name and id of each subdirectory.
        refused: names of entries that cannot be part of a path. git itself does not make such trees.
    """

    contents: tuple[tuple[bytes, Id], ...]
    directories: tuple[tuple[bytes, Id], ...]
    refused: tuple[bytes, ...]


def parse_commit(data: bytes) -> Commit:
    """Returns the commit with the body `data`. Raises `RepositoryError` if it is not a commit."""
    match = _COMMIT.match(data)
    if match is None:
        raise RepositoryError("a commit cannot be parsed")
    root, parents, author = match.groups()
    parent_ids = tuple(bytes.fromhex(line[7:].decode()) for line in parents.splitlines())
    # `name <email> time zone`. The name may hold anything, so the last '>' counts, as in git.
    time = None if author is None else _AUTHOR_TIME.match(author.rpartition(b">")[2])
    return Commit(bytes.fromhex(root.decode()), parent_ids, None if time is None else int(time[1]))


def parse_tag(data: bytes) -> Tag:
    """Returns the annotated tag with the body `data`. Raises `RepositoryError` if it is not a tag."""
    match = _TAG.match(data)
    if match is None:
        raise RepositoryError("a tag cannot be parsed")
    return Tag(bytes.fromhex(match[1].decode()), match[2].decode())


def parse_tree(data: bytes) -> Tree:
    """Returns the tree with the body `data`. Raises `RepositoryError` if it is not a tree."""
    contents, directories, refused = [], [], []
    end = 0
    for match in _TREE_ENTRY.finditer(data):
        if match.start() != end:
            break
        end = match.end()
        mode, name, entry_id = int(match[1], 8), match[2], match[3]
        if mode == _SUBMODULE_MODE:
            continue
        if name in (b"", b".") or b"/" in name:
            refused.append(name)
        elif mode == _DIRECTORY_MODE:
            directories.append((name, entry_id))
        else:
            contents.append((name, entry_id))
    if end != len(data):
        raise RepositoryError("a tree cannot be parsed")
    return Tree(tuple(contents), tuple(directories), tuple(refused))


class TreeCache:
    """Reads trees, and keeps those used last, with at most `entries_max` entries together.

    It counts entries, not trees: one tree may have a hundred thousand. A tree larger than the bound is kept alone.
    """

    def __init__(self, read: Callable[[Id], Tree], entries_max: int) -> None:
        self._read = read
        self._entries_max = entries_max
        self._entries_count = 0
        self._trees: OrderedDict[Id, Tree] = OrderedDict()

    def __call__(self, tree_id: Id) -> Tree:
        """Returns a tree; raises what reading it raises."""
        tree = self._trees.get(tree_id)
        if tree is not None:
            self._trees.move_to_end(tree_id)
            return tree
        tree = self._read(tree_id)
        self._trees[tree_id] = tree
        self._entries_count += _size(tree)
        while self._entries_count > self._entries_max and len(self._trees) > 1:
            self._entries_count -= _size(self._trees.popitem(last=False)[1])
        return tree


def _size(tree: Tree) -> int:
    return 1 + len(tree.contents) + len(tree.directories)
