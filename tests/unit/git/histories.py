"""Random histories: equal dates, dates out of order, merges, equal and empty trees, several heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.support.git_repositories import SUBMODULE, Node, RepositoryWriter, content, paths

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe"])
LEAVES: list[Node] = [*(content(str(n)) for n in range(4)), content("link", 0o120000), SUBMODULE]


@dataclass(frozen=True)
class Draft:
    """A commit to be: the positions of its parents, its date, its tree."""

    parents: tuple[int, ...]
    date: int
    root: Mapping[bytes, Node]


@dataclass(frozen=True)
class Occurrence:
    """A content in a revision."""

    date: int
    revision: bytes
    path: bytes


@dataclass(frozen=True)
class Written:
    """A repository that was made, and what an index of it should know.

    Attributes:
        path: where it is.
        dates: the author time of each revision.
        roots: the root directory of each revision.
        trees: each directory.
        parents: the parents of each revision.
        heads: the revisions that refs name.
    """

    path: Path
    dates: dict[bytes, int]
    roots: dict[bytes, bytes]
    trees: dict[bytes, Mapping[bytes, Node]]
    parents: dict[bytes, list[bytes]]
    heads: set[bytes]

    def occurrences(self) -> dict[bytes, set[Occurrence]]:
        """Returns every occurrence of each content."""
        found: dict[bytes, set[Occurrence]] = {}
        for revision, root in self.roots.items():
            for content_id, path in paths(self.trees[root]):
                found.setdefault(content_id, set()).add(Occurrence(self.dates[revision], revision, path))
        return found


@st.composite
def histories(draw: st.DrawFn) -> list[Draft]:
    """Draws histories that are small, but not so small that there is nothing in them to go wrong."""
    small = st.dictionaries(NAMES, st.sampled_from(LEAVES), min_size=1, max_size=3)
    pool: list[Node] = [{}, *draw(st.lists(small, min_size=1, max_size=3))]
    for _ in range(draw(st.integers(0, 2))):
        pool.append(draw(st.dictionaries(NAMES, st.sampled_from([*LEAVES, *pool[1:]]), min_size=1, max_size=3)))
    roots = st.dictionaries(NAMES, st.sampled_from([*LEAVES[:4], *pool, *pool]), min_size=1, max_size=3)
    history: list[Draft] = []
    for n in range(draw(st.integers(2, 10))):
        parents = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2, unique=True)) if n else []
        kept = history[parents[0]].root if draw(st.booleans()) and parents else {}
        history.append(Draft(tuple(parents), draw(st.integers(-1, 5)), {**kept, **draw(roots)}))
    return history


def heads_of(history: Sequence[Draft]) -> st.SearchStrategy[set[int]]:
    return st.sets(st.integers(0, len(history) - 1), min_size=1, max_size=4)


def write_history(path: Path, history: Sequence[Draft], heads: Collection[int]) -> Written:
    """Makes a repository of what the heads reach, and of more that they do not."""
    repository, commits = RepositoryWriter(path), list[bytes]()
    for n, draft in enumerate(history):
        parents = [commits[parent] for parent in draft.parents]
        commits.append(repository.commit(repository.tree(draft.root), draft.date, parents, str(n)))
    for head in heads:
        repository.ref(commits[head] if head % 2 else repository.tag(commits[head]))
    wanted = reached(history, heads)
    return Written(
        path,
        {commits[n]: history[n].date for n in wanted},
        {commits[n]: repository.tree(history[n].root) for n in wanted},
        repository.trees,
        {commits[n]: [commits[parent] for parent in history[n].parents] for n in wanted},
        {commits[n] for n in heads},
    )


def reached(history: Sequence[Draft], heads: Collection[int]) -> set[int]:
    found, waiting = set(heads), list(heads)
    while waiting:
        for parent in history[waiting.pop()].parents:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def together(one: Written, other: Written) -> Written:
    return Written(
        one.path,
        one.dates | other.dates,
        one.roots | other.roots,
        one.trees | other.trees,
        one.parents | other.parents,
        one.heads | other.heads,
    )
