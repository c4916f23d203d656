"""Git's objects from their bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_client.git.objects import Commit, Tag, Tree, parse_commit, parse_tag, parse_tree
from provgate_client.git.settings import RepositoryError
from tests.support.git_repositories import SUBMODULE, Leaf, Node, content, tree_body, tree_id

A, B, C = b"a" * 20, b"b" * 20, b"c" * 20


def commit(author: bytes, parents: bytes = b"") -> bytes:
    return b"tree %s\n%sauthor %s\ncommitter c <c> 5 +0000\n\nauthor x <> 9 +0000\n" % (
        A.hex().encode(),
        parents,
        author,
    )


def test_a_commit_with_its_parents() -> None:
    parents = b"parent %s\nparent %s\n" % (B.hex().encode(), C.hex().encode())
    assert parse_commit(commit(b"A U Thor <a@b> 1234 +0200", parents)) == Commit(A, (B, C), 1234)


@pytest.mark.parametrize(
    ("author", "time_s"),
    [
        (b"a <b> 0 +0000", 0),
        (b"a <b> -99 +0000", -99),
        (b"<> 7 +0000", 7),
        (b"a > 3 <b> c> 7 +0000", 7),
        (b"\xff <\xfe> 7 -1200", 7),
        (b"a <b> 7", 7),
        (b"a <b>7 +0000", 7),
        (b"a <b> 253402300800 +0000", 253402300800),
        (b"a <b>", None),
        (b"a <b> ", None),
        (b"a <b> x +0000", None),
        (b"a <b> 7x +0000", None),
        (b"a <b> 99999999999999999999999 +0000", None),
        (b"", None),
    ],
)
def test_author_times(author: bytes, time_s: int | None) -> None:
    assert parse_commit(commit(author)).author_time_s == time_s


def test_a_commit_without_an_author_still_has_parents() -> None:
    data = b"tree %s\nparent %s\n\nmessage" % (A.hex().encode(), B.hex().encode())
    assert parse_commit(data) == Commit(A, (B,), None)


@pytest.mark.parametrize("data", [b"", b"tree abc\n", b"parent " + A.hex().encode() + b"\n", b"\0" * 60])
def test_what_is_no_commit(data: bytes) -> None:
    with pytest.raises(RepositoryError):
        parse_commit(data)


def test_tags() -> None:
    assert parse_tag(b"object %s\ntype tree\ntag t\n\n" % A.hex().encode()) == Tag(A, "tree")
    with pytest.raises(RepositoryError):
        parse_tag(b"object nothing\n")


def test_submodules_are_no_entries_and_links_are_contents() -> None:
    link, script = content("l", 0o120000), content("s", 0o100755)
    node: dict[bytes, Node] = {b"link": link, b"run": script, b"sub": SUBMODULE, b"dir": {b"a": link}}
    assert parse_tree(tree_body(node)) == Tree(
        ((b"link", link.id), (b"run", script.id)), ((b"dir", tree_id({b"a": link})),), ()
    )


@given(
    st.dictionaries(
        st.binary(min_size=1).filter(lambda name: not set(name) & {0, 47} and name != b"."),
        st.binary(min_size=20, max_size=20),
    )
)
def test_any_name_and_any_id(entries: dict[bytes, bytes]) -> None:
    tree = parse_tree(tree_body({name: Leaf(entry) for name, entry in entries.items()}))
    assert tree == Tree(tuple(sorted(entries.items())), (), ())


@pytest.mark.parametrize(
    "data", [b"x", b"100644 a\0" + b"i" * 19, b"100644 a\0" + A + b"?", b"?100644 a\0" + A, b"8 a\0" + A]
)
def test_what_is_no_tree(data: bytes) -> None:
    with pytest.raises(RepositoryError):
        parse_tree(data)
