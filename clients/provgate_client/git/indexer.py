"""The index of one git repository."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from provgate_client.git.batch import Batch, pieces
from provgate_client.git.calls import StorageCalls
from provgate_client.git.dates import KnownDates
from provgate_client.git.decide import decide
from provgate_client.git.history import Revision, date_of, read_history
from provgate_client.git.objects import TreeCache
from provgate_client.git.pipeline import BatchWriter
from provgate_client.git.progress import IndexReport, ProgressCallback, ProgressMeter
from provgate_client.git.settings import IndexSettings
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import Id, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import check_url

if TYPE_CHECKING:
    from provgate_client.git.repository import GitRepository


def index_repository(
    repository: Path,
    storage: ProvenanceStorageInterface,
    origin_url: str | None,
    *,
    progress: ProgressCallback | None = None,
    any_owner: bool = False,
    settings: IndexSettings | None = None,
) -> IndexReport:
    """Writes the history of a git repository to a provenance index.

    It indexes every commit that a ref or a HEAD reaches, in the order of (author date, id). Afterwards
    `content_find_all` gives each (revision, path) of the history in which a content occurs, and `content_find_first`
    the earliest. You can interrupt it at any point, or kill the process, and run it again: it continues where it
    stopped, and the index is the same. Commits and entries that the index cannot hold are left out and reported.

    Args:
        repository: a bare repository, a working tree, or a linked working tree.
        storage: an open storage. Several threads call it at once. It is not closed.
        origin_url: where the repository comes from. Its heads are written as REV_IN_ORG, and it becomes the preferred
            origin of revisions that have none. None: no origin is written.
        progress: called after the commits are listed, and when a call begins or is acked, by one thread at a time but
            not always the same one. It should return quickly.
        any_owner: reads the repository even if it belongs to another user. False is git's rule: it must belong to this
            user, to the user behind sudo, or be listed in `safe.directory`.
        settings: sizes and bounds; the defaults if None.

    Raises:
        RepositoryError: the repository cannot be read.
        GitReaderMissingError: the extra `provgate[git]` is not installed.
        StorageGaveUpError: the storage did not accept or answer a call within `settings.give_up_after_s`.
        StorageError: the storage refused a call for good; also if `origin_url` is not a valid URL.
    """
    # Imported late, so that the command line works without the library, and can say what to install.
    from provgate_client.git.repository import GitRepository

    settings = settings or IndexSettings()
    if origin_url is not None:
        check_url(origin_url)
    meter = ProgressMeter(progress)
    calls = StorageCalls(meter, settings.give_up_after_s)
    with GitRepository(repository, any_owner=any_owner) as git, BatchWriter(storage, calls, meter, settings) as writer:
        return _Index(git, storage, calls, writer, meter, settings).run(origin_url)


class _Index:
    """One run of the indexer."""

    def __init__(
        self,
        git: GitRepository,
        storage: ProvenanceStorageInterface,
        calls: StorageCalls,
        writer: BatchWriter,
        meter: ProgressMeter,
        settings: IndexSettings,
    ) -> None:
        self._git = git
        self._storage = storage
        self._calls = calls
        self._writer = writer
        self._meter = meter
        self._settings = settings
        self._tree_of = TreeCache(git.tree, settings.tree_entries_cached)
        self._dates = KnownDates(self._tree_of, storage, calls, settings.lookup_ids)
        self._report = IndexReport()
        self._batch = Batch()

    def run(self, origin_url: str | None) -> IndexReport:
        history = read_history(self._git)
        for item in history.left_out:
            self._report.leave_out(item)
        self._meter.add(total=len(history.order))
        origin: Id | None = None
        if origin_url is not None:
            origin = hashlib.sha1(origin_url.encode(), usedforsecurity=False).digest()
            self._calls.write("origin", 1, partial(self._storage.origin_add, {origin: origin_url}))
        for some in pieces(history.order, self._settings.lookup_revisions):
            self._add_revisions(some, origin)
        self._flush()
        if origin is not None:
            # The heads last: if an origin has heads, it has their history too.
            for head in history.heads:
                self._batch.add_row(RelationType.REV_IN_ORG, head, RelationData(origin, None))
            self._flush()
        progress, report = self._meter.progress, self._report
        report.revisions_total = progress.revisions_total
        report.revisions_known = progress.revisions_known
        report.revisions_done = progress.revisions_done
        report.head_count = len(history.heads)
        report.entries = self._meter.entries
        return report

    def _add_revisions(self, some: Sequence[tuple[int, Id]], origin: Id | None) -> None:
        """Adds those of some revisions that are not stored, and the preferred origin of those that have none.

        The dates of as many revisions as `lookup_ids` allows are looked up at once.
        """
        ids = [revision_id for _, revision_id in some]
        stored = self._calls.read("revision_get", partial(self._storage.revision_get, ids))
        known_count = 0
        waiting: list[tuple[Revision, Id | None]] = []
        for author_time_s, revision_id in some:
            data = stored.get(revision_id, RevisionData(None, None))
            missing_origin = origin if data.origin is None else None
            if data.date is not None:
                known_count += 1
                if missing_origin is not None:
                    self._batch.revisions[revision_id] = RevisionData(None, missing_origin)
                continue
            commit = self._git.commit(revision_id)
            revision = Revision(revision_id, date_of(author_time_s), commit.root, commit.parents)
            waiting.append((revision, missing_origin))
            self._dates.expect(revision.root)
            if self._dates.expected_count >= self._settings.lookup_ids:
                self._decide(waiting)
                waiting = []
        self._meter.add(known=known_count)
        self._decide(waiting)

    def _decide(self, revisions: Iterable[tuple[Revision, Id | None]]) -> None:
        settings = self._settings
        self._dates.look_up()
        for revision, origin in revisions:
            additions = decide(revision, self._tree_of, self._dates.contents, self._dates.directories)
            self._dates.count(additions)
            self._batch.add(revision, additions, origin)
            for item in additions.left_out:
                self._report.leave_out(item)
            if self._batch.row_count >= settings.batch_rows or len(self._batch.revisions) >= settings.batch_revisions:
                self._submit()
        if len(self._dates) > settings.dates_cached:
            self._flush()
            self._dates.forget()

    def _submit(self) -> None:
        batch, self._batch = self._batch, Batch()
        self._writer.submit(batch)

    def _flush(self) -> None:
        """Submits the current batch, and waits until everything is acked."""
        self._submit()
        self._writer.drain()
