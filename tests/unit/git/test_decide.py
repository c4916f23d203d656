"""What a revision adds, case by case; test_index_properties has the rules at large."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from provgate_client.git.decide import Additions, decide
from provgate_client.git.history import Revision
from provgate_client.git.objects import Tree, parse_tree
from provgate_client.git.progress import LeftOutReason
from provgate_storage.rows.values import PATH_MAX_BYTES
from tests.support.git_repositories import Leaf, Node, content, tree_body, tree_id

REVISION = b"r" * 20
DAY = datetime(2020, 1, 2, tzinfo=UTC)
BEFORE = DAY - timedelta(microseconds=1)
AFTER = DAY + timedelta(days=1)
X, Y, Z = content("x"), content("y"), content("z")


def decided(
    root: Mapping[bytes, Node],
    contents: Mapping[Leaf, datetime] | None = None,
    directories: Mapping[bytes, datetime] | None = None,
) -> Additions:
    trees = dict(all_trees(root))
    known = {leaf.id: date for leaf, date in (contents or {}).items()}
    content_dates = {entry: known.get(entry) for tree in trees.values() for _, entry in tree.contents}
    directory_dates = {tree: (directories or {}).get(tree) for tree in trees}
    return decide(Revision(REVISION, DAY, tree_id(root), ()), trees.__getitem__, content_dates, directory_dates)


def all_trees(node: Mapping[bytes, Node]) -> list[tuple[bytes, Tree]]:
    found = [(tree_id(node), parse_tree(tree_body(node)))]
    for child in node.values():
        if not isinstance(child, Leaf):
            found.extend(all_trees(child))
    return found


def test_a_directory_whose_contents_are_all_older_is_a_frontier() -> None:
    inner: Mapping[bytes, Node] = {b"b": X, b"e": {b"c": Y}}
    added = decided({b"d": inner}, {X: BEFORE, Y: BEFORE - timedelta(days=1)})
    assert added.frontiers == [(tree_id(inner), b"d")]
    assert set(added.in_directory) == {(X.id, tree_id(inner), b"b"), (Y.id, tree_id(inner), b"e/c")}
    assert added.directory_dates == {tree_id(inner): BEFORE}
    assert not added.in_revision
    assert not added.content_dates


@pytest.mark.parametrize("date", [DAY, AFTER])
def test_a_content_that_is_not_older_makes_a_directory_no_frontier(date: datetime) -> None:
    added = decided({b"d": {b"a": X, b"b": Y}}, {X: BEFORE, Y: date})
    assert not added.frontiers
    assert set(added.in_revision) == {(X.id, b"d/a"), (Y.id, b"d/b")}
    assert added.content_dates == ({Y.id: DAY} if date == AFTER else {})


@pytest.mark.parametrize("date", [None, AFTER])
def test_a_content_that_is_older_by_its_directory_alone_counts_with_the_date_of_the_revision(
    date: datetime | None,
) -> None:
    inner: Mapping[bytes, Node] = {b"a": X}
    outer: Mapping[bytes, Node] = {b"b": Y, b"i": inner}
    known = {Y: BEFORE} if date is None else {Y: BEFORE, X: date}
    added = decided({b"d": outer}, known, {tree_id(inner): BEFORE})
    assert added.frontiers == [(tree_id(outer), b"d")]
    assert added.directory_dates == {tree_id(outer): DAY}


def test_a_directory_with_a_later_date_is_a_frontier_all_the_same_where_its_contents_are_older() -> None:
    inner: Mapping[bytes, Node] = {b"a": X}
    added = decided({b"d": inner}, {X: BEFORE}, {tree_id(inner): AFTER})
    assert added.frontiers == [(tree_id(inner), b"d")]
    assert not added.in_directory


def test_a_directory_with_a_date_gets_no_rows_again() -> None:
    inner: Mapping[bytes, Node] = {b"a": X}
    added = decided({b"d": inner}, {X: BEFORE}, {tree_id(inner): BEFORE})
    assert added.frontiers == [(tree_id(inner), b"d")]
    assert not added.in_directory
    assert not added.directory_dates


def test_a_directory_at_several_paths_gets_its_rows_once() -> None:
    inner: Mapping[bytes, Node] = {b"a": X, b"b": X}
    added = decided({b"d": inner, b"e": {b"f": inner, b"new": Z}}, {X: BEFORE})
    assert set(added.frontiers) == {(tree_id(inner), b"d"), (tree_id(inner), b"e/f")}
    assert sorted(added.in_directory) == [(X.id, tree_id(inner), b"a"), (X.id, tree_id(inner), b"b")]
    assert added.in_revision == [(Z.id, b"e/new")]


def test_the_root_is_never_a_frontier() -> None:
    root: Mapping[bytes, Node] = {b"a": X}
    added = decided(root, {X: BEFORE}, {tree_id(root): BEFORE})
    assert added.in_revision == [(X.id, b"a")]
    assert not added.content_dates


@pytest.mark.parametrize("empty", [{}, {b"e": {}}, {b"s": Leaf(b"s" * 20, 0o160000)}])
def test_a_directory_with_no_content_below_it_is_skipped(empty: Mapping[bytes, Node]) -> None:
    added = decided({b"d": empty, b"f": {b"a": X, b"g": empty}}, {X: BEFORE})
    assert [path for _, path in added.frontiers] == [b"f"]


def test_a_path_that_is_too_long_is_left_out_and_gets_no_date() -> None:
    fits, too_long = b"n" * (PATH_MAX_BYTES - 2), b"n" * (PATH_MAX_BYTES - 1)
    added = decided({b"d": {fits: X, too_long: Y}})
    assert added.in_revision == [(X.id, b"d/" + fits)]
    assert added.content_dates == {X.id: DAY}
    assert [(item.reason, item.path) for item in added.left_out] == [(LeftOutReason.PATH_LENGTH, b"d/" + too_long)]


def test_a_path_may_be_too_long_only_as_a_whole_where_a_frontier_cuts_it() -> None:
    long = b"n" * PATH_MAX_BYTES
    added = decided({long: {long: X}}, {X: BEFORE})
    assert [path for _, path in added.frontiers] == [long]
    assert [path for *_, path in added.in_directory] == [long]
    assert not added.left_out


def test_a_directory_at_a_path_that_is_too_long_is_left_out() -> None:
    added = decided({b"n" * (PATH_MAX_BYTES + 1): {b"a": X, b"b": Y}}, {X: BEFORE, Y: BEFORE})
    assert not added.frontiers
    assert [item.reason for item in added.left_out] == [LeftOutReason.PATH_LENGTH]


@pytest.mark.parametrize("date", [BEFORE, None])
def test_names_that_make_no_path_are_left_out(date: datetime | None) -> None:
    added = decided({b"d": {b".": Y, b"a/b": Z, b"": {b"c": Z}, b"a": X}}, {X: date} if date else {})
    assert [path for *_, path in added.in_directory + added.in_revision] == [b"a" if date else b"d/a"]
    assert sorted(item.path or b"" for item in added.left_out) == [b"d/", b"d/.", b"d/a/b"]
    assert {item.reason for item in added.left_out} == {LeftOutReason.NAME}


@pytest.mark.parametrize("date", [BEFORE, None])
def test_trees_may_be_deeper_than_the_stack_of_calls(date: datetime | None) -> None:
    trees, child = {}, Tree(((b"f", X.id),), (), ())
    for n in range(20_000):
        trees[n.to_bytes(20)] = child
        child = Tree((), ((b"d", n.to_bytes(20)),), ())
    trees[REVISION] = child
    added = decide(Revision(REVISION, DAY, REVISION, ()), trees.__getitem__, {X.id: date}, dict.fromkeys(trees))
    assert [item.reason for item in added.left_out] == [LeftOutReason.PATH_LENGTH]
    assert len(added.frontiers) == (1 if date else 0)
