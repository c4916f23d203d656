"""The index of a repository made by git, against what git prints of it."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from provgate_client.git import IndexProgress, IndexReport, LeftOutReason, StorageGaveUpError, index_repository
from provgate_client.git.settings import IndexSettings
from provgate_storage.errors import InvalidValueError
from provgate_storage.model import EntityType, RelationData, RelationType, RevisionData
from tests.support.git_program import commit_file, git
from tests.support.git_repositories import RepositoryWriter, brute_force, content
from tests.support.reference import InMemoryProvenanceStorage

URL = "https://example.org/repository"
ORIGIN = hashlib.sha1(URL.encode()).digest()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A working tree with a rename, a merge, a link, an executable, an empty file, and dates that go back."""
    path = tmp_path / "clone"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", path)
    for n, name in enumerate(["a", "lib/x", "lib/deep/y", "lib/deep/z", "docs/a"]):
        commit_file(path, name, name, date=1000 + n)
    git(path, "mv", "lib", "library")
    (path / "link").symlink_to("library")
    commit_file(path, "naïve\ttab", "", date=1010)
    git(path, "switch", "--quiet", "--create=side", "HEAD~2")
    commit_file(path, "library/deep/y", "lib/deep/y", date=1)
    commit_file(path, "run", "#!/bin/sh", date=1003)
    git(path, "switch", "--quiet", "main")
    commit_file(path, "a", "changed", date=1011)
    git(path, "merge", "--quiet", "--message=merge", "side", date=1012)
    git(path, "tag", "--annotate", "--message=x", "v1", "HEAD~1")
    return path


def index(path: Path, storage: InMemoryProvenanceStorage) -> IndexReport:
    return index_repository(path, storage, URL)


def test_every_content_is_found_where_git_lists_it(clone: Path) -> None:
    storage = InMemoryProvenanceStorage()
    assert index(clone, storage).is_complete
    for content_id, occurrences in brute_force(clone).items():
        found = list(storage.content_find_all(content_id))
        assert [(int(each.date.timestamp()), each.revision, each.path) for each in found] == sorted(occurrences)
        assert storage.content_find_first(content_id) == found[0]
        assert {each.origin for each in found} == {URL}
    assert storage.entity_get_all(EntityType.CONTENT) == set(brute_force(clone))


def test_parents_heads_and_origin(clone: Path) -> None:
    storage = InMemoryProvenanceStorage()
    index(clone, storage)
    lines = [line.split() for line in git(clone, "rev-list", "--all", "--parents").splitlines()]
    before = storage.relation_get_all(RelationType.REV_BEFORE_REV)
    assert {(parent.hex(), row.dst.hex()) for parent, rows in before.items() for row in rows} == {
        (parent, child) for child, *parents in lines for parent in parents
    }
    heads = git(clone, "rev-parse", "main", "side", "v1^{commit}").split()
    assert storage.relation_get_all(RelationType.REV_IN_ORG) == {
        bytes.fromhex(head): {RelationData(ORIGIN, None)} for head in heads
    }
    assert storage.origin_get([ORIGIN]) == {ORIGIN: URL}


def test_progress_only_grows_and_a_second_run_adds_only_a_new_commit(clone: Path) -> None:
    storage = InMemoryProvenanceStorage()
    seen: list[IndexProgress] = []
    report = index_repository(clone, storage, URL, progress=seen.append)
    count = report.revisions_done
    for before, after in itertools.pairwise(seen):
        assert before.revisions_done <= after.revisions_done
        assert before.entries_acked <= after.entries_acked <= after.entries_sent
    assert seen[-1].revisions_done == seen[-1].revisions_total == count
    assert seen[-1].entries_acked == seen[-1].entries_sent == report.entries.total()
    report = index(clone, storage)
    assert (report.revisions_total, report.revisions_known, report.revisions_done) == (count, count, 0)
    assert set(report.entries) == {"origin", "revision_in_origin"}
    new = commit_file(clone, "new", "new", date=1)
    assert index(clone, storage).revisions_done == 1
    assert bytes.fromhex(new) in storage.relation_get_all(RelationType.REV_IN_ORG)


def test_a_directory_gets_its_rows_once_for_all_batches_in_flight(tmp_path: Path) -> None:
    writer, parents = RepositoryWriter(tmp_path / "git"), list[bytes]()
    for date in range(1, 5):
        tree = writer.tree({b"d": {b"a": content("a")}, b"new": content(str(date))})
        parents = [writer.commit(tree, date, parents)]
    writer.ref(parents[0])
    bounds = IndexSettings(batch_revisions=1)
    report = index_repository(writer.path, InMemoryProvenanceStorage(), URL, settings=bounds)
    # The first revision has a row for the content, the other three have one for the directory.
    assert report.entries["directory_in_revision"] == 3
    assert (report.entries["content_in_directory"], report.entries["directory"]) == (1, 1)


def test_an_origin_is_preferred_only_where_there_is_none(clone: Path) -> None:
    storage, other = InMemoryProvenanceStorage(), hashlib.sha1(b"other").digest()
    revisions = [bytes.fromhex(line) for line in git(clone, "rev-list", "--all").split()]
    storage.revision_add({revisions[0]: RevisionData(None, other)})
    index_repository(clone, storage, None)
    assert storage.relation_get_all(RelationType.REV_IN_ORG) == {}
    index(clone, storage)
    origins = {revision: data.origin for revision, data in storage.revision_get(revisions).items()}
    assert origins == {**dict.fromkeys(revisions, ORIGIN), revisions[0]: other}


def test_what_cannot_be_held_is_left_out_and_reported(tmp_path: Path) -> None:
    writer, storage = RepositoryWriter(tmp_path / "git"), InMemoryProvenanceStorage()
    good, long = content("good"), b"n" * 4097
    bad_commit = writer.commit(writer.tree({b"a": good}), 2**40)
    commit = writer.commit(writer.tree({b"a": good, long: content("bad")}), 5, [bad_commit])
    writer.ref(commit)
    report = index(writer.path, storage)
    assert not report.is_complete
    assert report.left_out_count == {LeftOutReason.DATE_RANGE: 1, LeftOutReason.PATH_LENGTH: 1}
    assert [(item.revision, item.path) for item in report.left_out] == [(bad_commit, None), (commit, long)]
    assert storage.entity_get_all(EntityType.CONTENT) == {good.id}
    assert storage.relation_get_all(RelationType.REV_BEFORE_REV) == {bad_commit: {RelationData(commit, None)}}


def test_a_bad_url_is_refused_before_anything_is_written(clone: Path) -> None:
    storage = InMemoryProvenanceStorage()
    with pytest.raises(InvalidValueError):
        index_repository(clone, storage, "")
    assert storage.entity_get_all(EntityType.REVISION) == set()


def test_a_storage_that_takes_nothing_ends_the_index(clone: Path) -> None:
    class Refusing(InMemoryProvenanceStorage):
        def content_add(self, cnts: object) -> bool:
            return False

    storage = Refusing()
    with pytest.raises(StorageGaveUpError, match="run the same index again"):
        index_repository(clone, storage, URL, settings=IndexSettings(give_up_after_s=0.1))
    assert storage.directory_get(storage.entity_get_all(EntityType.DIRECTORY)) == {}
    assert storage.revision_get(storage.entity_get_all(EntityType.REVISION)) == {}
