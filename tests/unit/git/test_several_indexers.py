"""Several indexers that write histories which they share, with the steps of all of them in any order."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provgate_client.git import IndexSettings, index_repository
from tests.support.git_repositories import Node, content
from tests.support.reference import InMemoryProvenanceStorage
from tests.unit.git.crashing import CrashError
from tests.unit.git.histories import NAMES, Draft, Occurrence, heads_of, together, write_history
from tests.unit.git.test_index_properties import SETTINGS, URL, assert_finds, merge
from tests.unit.git.turns import Turns
from tests.unit.git.witness import WitnessStorage

INDEXERS = 3
# `INDEXER_HISTORIES=1000 pytest --hypothesis-seed=N` tries more of them, and others.
HISTORIES = int(os.environ.get("INDEXER_HISTORIES", "40"))


class View:
    """A storage as one indexer sees it, which others use too.

    Args:
        shared: the storage.
        before: called with the name of each call before it is made; what it raises, the call raises.
    """

    def __init__(self, shared: InMemoryProvenanceStorage, before: Callable[[str], None]) -> None:
        self._shared = shared
        self._before = before

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._shared, name)

        def stepped(*arguments: Any) -> Any:
            self._before(name)
            return call(*arguments)

        return stepped


# All that is new of the outer directory is in the inner one, and that one both indexers know.
INNER: Mapping[bytes, Node] = {b"new": content("new")}
OUTER: Mapping[bytes, Node] = {b"inner": INNER, b"old": content("old")}
ONE = [Draft((), 10, {b"old": content("old")}), Draft((0,), 40, {b"outer": OUTER})]
OTHER = [Draft((), 30, {b"new": content("new")}), Draft((0,), 35, {b"inner": INNER})]
EARLIER = [Draft((), 20, {b"outer": OUTER})]


@pytest.mark.parametrize("bounds", [{}, {"lookup_revisions": 1}], ids=["at once", "one by one"])
def test_an_index_may_be_written_between_any_two_look_ups_of_another(tmp_path: Path, bounds: dict[str, int]) -> None:
    expected: dict[bytes, set[Occurrence]] = {}
    for name, history in (("one", ONE), ("other", OTHER), ("earlier", EARLIER)):
        merge(expected, write_history(tmp_path / name, history, [len(history) - 1]))
    position, look_up_count = 0, 1
    while position < look_up_count:
        shared = InMemoryProvenanceStorage()
        look_up_count = index_one_and_the_other(tmp_path, shared, position, IndexSettings(**bounds))
        index_repository(tmp_path / "earlier", shared, URL)
        assert_finds(shared, expected)
        position += 1
    assert position >= 3


def index_one_and_the_other(
    directory: Path, shared: InMemoryProvenanceStorage, position: int, bounds: IndexSettings
) -> int:
    """Indexes the one, and the other before look-up `position` of the one; returns how many look-ups there were."""
    look_ups: list[str] = []

    def before(name: str) -> None:
        if name.endswith("_get"):
            if len(look_ups) == position:
                index_repository(directory / "other", shared, URL)
            look_ups.append(name)

    view: Any = View(shared, before)
    index_repository(directory / "one", view, URL, settings=bounds)
    return len(look_ups)


@st.composite
def nested_histories(draw: st.DrawFn) -> list[Draft]:
    """Draws histories of few directories, one in the other, that come up again and again at other dates."""
    nodes: list[Node] = [content("0"), content("1")]
    for n in range(draw(st.integers(2, 4))):
        entries = draw(st.dictionaries(NAMES, st.sampled_from(nodes), min_size=1, max_size=2))
        nodes += [content(str(n + 2)), entries, {**entries, b"d": nodes[-1]}]
    roots = st.dictionaries(NAMES, st.sampled_from(nodes), min_size=1, max_size=2)
    history: list[Draft] = []
    for n in range(draw(st.integers(5, 9))):
        parents = draw(st.lists(st.integers(0, n - 1), max_size=1)) if n else []
        history.append(Draft(tuple(parents), draw(st.integers(0, 9)), draw(roots)))
    return history


@given(nested_histories(), st.lists(SETTINGS, min_size=INDEXERS, max_size=INDEXERS), st.integers(0, 2**32), st.data())
@settings(max_examples=HISTORIES, deadline=None, print_blob=True)
def test_three_indexers_may_make_their_steps_in_any_order_and_be_killed(
    history: list[Draft], bounds: Sequence[IndexSettings], seed: int, data: st.DataObject
) -> None:
    turns, chance = Turns(seed), random.Random(seed)
    expected: dict[bytes, set[Occurrence]] = {}

    def run(repository: Path, bounds: IndexSettings) -> None:
        """Runs one until it ends; it is killed once, or not."""
        for lives in (chance.randrange(150), -1):
            view: Any = View(shared, Life(turns, lives).step)
            try:
                index_repository(repository, view, URL, settings=bounds)
            except CrashError:
                continue
            return

    with tempfile.TemporaryDirectory() as directory:
        every = [write_history(Path(directory, str(n)), history, data.draw(heads_of(history))) for n in range(INDEXERS)]
        for written in every:
            merge(expected, written)
        shared = WitnessStorage(reduce(together, every))
        with turns.instead_of_threads():
            turns.run([partial(run, written.path, each) for written, each in zip(every, bounds, strict=True)])
    # What one has begun of a revision that another one finishes may have no dates yet.
    assert [what for what in shared.broken if "without dates" not in what] == []
    assert_finds(shared, expected)


class Life:
    """An indexer's process: a step before each call, and after a number of calls no further one."""

    def __init__(self, turns: Turns, lives: int) -> None:
        self._turns = turns
        self._lives = lives

    def step(self, name: str) -> None:
        self._turns.pause(may_change=name.endswith("_get"))
        if self._lives == 0:
            raise CrashError
        self._lives -= 1
