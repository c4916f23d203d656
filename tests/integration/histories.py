"""Three made-up histories as git repositories: merges, branches, moves, copies, and dates that are equal or go back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.git_repositories import Node, RepositoryWriter, content

HISTORIES: Final = ("library", "fork", "tool")
"""Their names. The fork leaves the library halfway; the last is the smallest."""

_COMMIT_COUNTS: Final = {"library": 600, "fork": 500, "tool": 150}
_FORKED_AFTER: Final = 300
_FILES: Final = (b"README", b"a.py", b"core.py", b"model.py", b"\xff\xfe", b"a b")
_DIRECTORIES: Final = (b"docs", b"package", b"tests", b"vendor")
_DEPTH_MAX: Final = 4

Tree = Mapping[bytes, Node]


class _Commit(NamedTuple):
    root: Tree
    date: int
    parents: tuple[int, ...]


def make_repository(name: str, directory: Path) -> Path:
    """Makes the bare repository of a history in a directory, the same each time, and returns its path."""
    repository = RepositoryWriter(directory / f"{name}.git")
    history = _history(name)
    ids: list[bytes] = []
    for number, commit in enumerate(history):
        parents = [ids[parent] for parent in commit.parents]
        ids.append(repository.commit(repository.tree(commit.root), commit.date, parents, str(number)))
    repository.ref(ids[-1], "refs/heads/main")
    for tip in set(range(len(ids))).difference(*(commit.parents for commit in history)):
        repository.ref(ids[tip])
    return repository.path


def _history(name: str) -> list[_Commit]:
    history = _history("library")[:_FORKED_AFTER] if name == "fork" else [_Commit({}, 1_000_000_000, ())]
    draw = random.Random(f"commits of {name}")
    while len(history) < _COMMIT_COUNTS[name]:
        # Mostly one after the other; now and then one that leaves the line, or merges.
        parents = {len(history) - 1 if draw.random() < 0.9 else draw.randrange(len(history))}
        if draw.random() < 0.1:
            parents.add(draw.randrange(len(history)))
        first, *rest = draw.sample(sorted(parents), len(parents))
        root = {**history[first].root, **(history[rest[0]].root if rest else {})}
        for _ in range(draw.randint(1, 8)):
            root = _edited(root, draw, name)
        date = history[first].date + draw.choice([-86_400, 0, 0, 60, 3_600, 86_400])
        history.append(_Commit(root, date, (first, *rest)))
    return history


def _edited(tree: Tree, draw: random.Random, name: str, depth: int = 0) -> dict[bytes, Node]:
    """Returns a tree with one change, in it or below it."""
    edited = dict(tree)
    if depth < _DEPTH_MAX and draw.random() < 0.7:
        below = draw.choice(_DIRECTORIES)
        inner = edited.get(below)
        edited[below] = _edited(inner if isinstance(inner, Mapping) else {}, draw, name, depth + 1)
        return edited
    kind = draw.random()
    if kind < 0.05 and edited:
        # A copy of what is there, under another name: a file, or all that is in a directory.
        edited[draw.choice((b"copy", b"moved"))] = edited[draw.choice(sorted(edited))]
    elif kind < 0.15 and len(edited) > 1:
        del edited[draw.choice(sorted(edited))]
    else:
        edited[draw.choice(_FILES)] = content(f"{name} {draw.randrange(10_000)}")
    return edited
