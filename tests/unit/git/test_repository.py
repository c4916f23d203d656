"""Repositories as git makes them, and as they should not be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provgate_client.git.history import History, read_history
from provgate_client.git.progress import LeftOutReason
from provgate_client.git.repository import GitRepository
from provgate_client.git.settings import ObjectMissingError, RepositoryError, RepositoryOwnerError
from tests.support.git_program import commit_file, git
from tests.support.git_repositories import RepositoryWriter, content


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A working tree with three commits."""
    path = tmp_path / "clone"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", path)
    for n in range(3):
        commit_file(path, "file", str(n), date=1000 + n)
    return path


def history_of(path: Path) -> History:
    with GitRepository(path) as repository:
        return read_history(repository)


def ids_of(path: Path) -> set[str]:
    return {commit.hex() for _, commit in history_of(path).order}


def rev_list(path: Path) -> set[str]:
    return set(git(path, "rev-list", "--all").split())


class TestWhatIsReached:
    def test_order_is_of_author_date_and_id(self, tmp_path: Path) -> None:
        writer = RepositoryWriter(tmp_path / "git")
        tree = writer.tree({b"a": content("a")})
        first = writer.commit(tree, 9)
        others = sorted(writer.commit(tree, 5, [first], str(n)) for n in range(4))
        for commit in others:
            writer.ref(commit)
        assert history_of(writer.path) == History([*((5, commit) for commit in others), (9, first)], others, [])

    def test_all_refs_count(self, clone: Path) -> None:
        git(clone, "switch", "--quiet", "--detach", "HEAD~1")
        for n, ref in enumerate(["refs/remotes/origin/x", "refs/notes/x", "refs/pull/1/head", "refs/stash"]):
            git(clone, "update-ref", ref, commit_file(clone, "file", ref, date=n))
        detached = commit_file(clone, "file", "detached", date=50)
        for name in ("annotated", "of-tag"):
            git(clone, "tag", "--annotate", "--message=x", name, commit_file(clone, "file", name, date=60))
            git(clone, "switch", "--quiet", "--detach", detached)
        git(clone, "tag", "--annotate", "--message=x", "--force", "of-tag", "of-tag")
        assert ids_of(clone) == rev_list(clone)
        assert len(ids_of(clone)) == 3 + 4 + 1 + 2

    @pytest.mark.parametrize("which", ["clone", "linked", "detached"])
    def test_heads_of_all_working_trees_count(self, clone: Path, which: str) -> None:
        git(clone, "worktree", "add", "--quiet", clone.parent / "linked", "-b", "other")
        git(clone, "worktree", "add", "--quiet", "--detach", clone.parent / "detached")
        commit_file(clone.parent / "detached", "file", "detached", date=7)
        git(clone, "switch", "--quiet", "--detach")
        commit_file(clone, "file", "detached too", date=8)
        assert ids_of(clone.parent / which) == rev_list(clone)
        assert len(ids_of(clone.parent / which)) == 5

    def test_other_refs_and_forms_of_storage_add_no_commit(self, clone: Path) -> None:
        for name, target in (("tree", "HEAD^{tree}"), ("blob", "HEAD:file")):
            git(clone, "tag", name, target)
            git(clone, "tag", "--annotate", "--message=x", f"{name}-annotated", target)
        git(clone, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/main")
        git(clone, "symbolic-ref", "refs/heads/dangling", "refs/heads/nowhere")
        git(clone, "pack-refs", "--all")
        git(clone, "gc", "--quiet")
        git(clone, "config", "core.repositoryFormatVersion", "1")
        git(clone, "config", "extensions.partialClone", "origin")
        not_utf_8 = os.fsencode(clone) + b"/.git/refs/heads/\xff"
        Path(os.fsdecode(not_utf_8)).write_text(git(clone, "rev-parse", "main") + "\n")
        assert len(ids_of(clone)) == 3

    def test_an_empty_repository(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "--quiet", "--bare", "bare")
        assert history_of(tmp_path / "bare") == History([], [], [])

    def test_a_shallow_clone_ends_where_it_ends(self, clone: Path) -> None:
        shallow = clone.parent / "shallow"
        git(clone, "clone", "--quiet", "--depth=2", clone.as_uri(), shallow)
        assert ids_of(shallow) == rev_list(shallow)
        assert len(ids_of(shallow)) == 2
        with GitRepository(shallow) as repository:
            last = bytes.fromhex(git(shallow, "rev-parse", "HEAD~1"))
            assert [parent.hex() for parent in repository.commit(last).parents] == [git(clone, "rev-parse", "HEAD~2")]

    def test_grafts_are_followed(self, clone: Path) -> None:
        head, root = git(clone, "rev-parse", "HEAD"), git(clone, "rev-parse", "HEAD~2")
        (clone / ".git" / "info").mkdir(exist_ok=True)
        (clone / ".git" / "info" / "grafts").write_text(f"{head} {root}\n")
        assert ids_of(clone) == {head, root}

    def test_replacements_are_not_followed(self, clone: Path) -> None:
        git(clone, "replace", "--graft", "HEAD")
        with GitRepository(clone) as repository:
            assert len(repository.commit(bytes.fromhex(git(clone, "rev-parse", "HEAD"))).parents) == 1


class TestCommitsThatAreLeftOut:
    @pytest.mark.parametrize(
        ("date", "reason"),
        [
            ("", LeftOutReason.DATE_MISSING),
            ("yesterday", LeftOutReason.DATE_MISSING),
            (253402300800, LeftOutReason.DATE_RANGE),
            (-62135596801, LeftOutReason.DATE_RANGE),
            (2**63 - 1, LeftOutReason.DATE_RANGE),
        ],
    )
    def test_a_date_that_cannot_be_kept(self, tmp_path: Path, date: object, reason: LeftOutReason) -> None:
        writer = RepositoryWriter(tmp_path / "git")
        tree = writer.tree({b"a": content("a")})
        parent = writer.commit(tree, 5)
        bad = writer.commit(tree, date, [parent])
        writer.ref(bad)
        history = history_of(writer.path)
        assert history.order == [(5, parent)]
        assert history.heads == []
        assert [(item.reason, item.revision) for item in history.left_out] == [(reason, bad)]

    @pytest.mark.parametrize("date", [253402300799, -62135596800])
    def test_the_first_and_the_last_date(self, tmp_path: Path, date: int) -> None:
        writer = RepositoryWriter(tmp_path / "git")
        writer.ref(writer.commit(writer.tree({}), date))
        assert [time_s for time_s, _ in history_of(writer.path).order] == [date]


class TestWhatCannotBeRead:
    def test_no_repository(self, tmp_path: Path, clone: Path) -> None:
        (clone / "directory").mkdir()
        (tmp_path / "file").touch()
        for path in (tmp_path / "absent", tmp_path / "file", tmp_path, clone / "directory"):
            with pytest.raises(RepositoryError, match=str(path)):
                GitRepository(path)

    def test_sha_256(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "--quiet", "--object-format=sha256", "r")
        with pytest.raises(RepositoryError, match="SHA-1"):
            GitRepository(tmp_path / "r")

    def test_an_unknown_extension(self, clone: Path) -> None:
        git(clone, "config", "core.repositoryFormatVersion", "1")
        git(clone, "config", "extensions.refStorage", "reftable")
        with pytest.raises(RepositoryError, match="refstorage"):
            GitRepository(clone)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository away")
    def test_another_owner(self, clone: Path) -> None:
        for path in (clone, *clone.rglob("*")):
            os.chown(path, 12345, 12345)
        with pytest.raises(RepositoryOwnerError, match=f"safe.directory {clone}"):
            GitRepository(clone)
        with GitRepository(clone, any_owner=True) as repository:
            assert len(read_history(repository).order) == 3
        with pytest.raises(RepositoryOwnerError):
            GitRepository(clone)

    def test_a_missing_parent(self, clone: Path) -> None:
        parent = git(clone, "rev-parse", "HEAD~1")
        _object_path(clone, parent).unlink()
        with pytest.raises(ObjectMissingError, match=f"the commit {parent} is missing"):
            history_of(clone)

    def test_a_ref_to_nothing(self, clone: Path) -> None:
        (clone / ".git" / "refs" / "heads" / "broken").write_text("1" * 40 + "\n")
        with pytest.raises(RepositoryError, match="refs/heads/broken"):
            history_of(clone)

    def test_a_missing_and_a_damaged_tree(self, clone: Path) -> None:
        tree = git(clone, "rev-parse", "HEAD^{tree}")
        path = _object_path(clone, tree)
        path.chmod(0o600)
        path.write_bytes(b"damaged")
        with GitRepository(clone) as repository, pytest.raises(RepositoryError, match=tree):
            repository.tree(bytes.fromhex(tree))
        path.unlink()
        with GitRepository(clone) as repository, pytest.raises(ObjectMissingError, match=tree):
            repository.tree(bytes.fromhex(tree))

    def test_an_object_of_another_kind(self, clone: Path) -> None:
        with GitRepository(clone) as repository, pytest.raises(RepositoryError, match="is not a commit"):
            repository.commit(bytes.fromhex(git(clone, "rev-parse", "HEAD^{tree}")))

    def test_damaged_grafts(self, clone: Path) -> None:
        (clone / ".git" / "shallow").write_text("nonsense\n")
        with pytest.raises(RepositoryError):
            history_of(clone)


def _object_path(clone: Path, object_id: str) -> Path:
    return clone / ".git" / "objects" / object_id[:2] / object_id[2:]
