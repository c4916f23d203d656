"""The choice of parts."""

from __future__ import annotations

import pytest

from bench.parts import PARTS, chosen


def names(only: tuple[str, ...] = (), quick: bool = False, large: bool = False) -> list[str]:
    return [part.name for part in chosen(only, quick, large)]


def test_the_usual_ones() -> None:
    usual = names()
    assert {"contents", "contents-1m", "mixed", "reads", "start"} <= set(usual)
    assert not {"idle", "large"} & set(usual)


def test_a_quick_one_has_less() -> None:
    assert set(names(quick=True)) < set(names())
    assert {"contents", "relations", "single", "reads", "indexing", "start"} <= set(names(quick=True))


def test_large_tables_are_measured_too_where_they_are_asked_for() -> None:
    assert set(names(large=True)) - set(names()) == {"large"}
    assert names(("contents",), large=True) == ["contents", "large"]


def test_what_is_named_runs_alone_and_in_the_usual_order() -> None:
    assert names(("idle", "relations", "contents")) == ["contents", "relations", "idle"]


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"nonsense: .*contents, .*start"):
        names(("contents", "nonsense"))


def test_no_name_is_there_twice() -> None:
    assert len({part.name for part in PARTS}) == len(PARTS)
