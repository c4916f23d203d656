"""The index of one git repository."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from provgate_client.git.batch import Batch
from provgate_client.git.dates import DateReader, KnownDates, StorageCalls
from provgate_client.git.decide import decide
from provgate_client.git.history import History, Revision, date_of, read_history
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

    Every commit that a ref or a HEAD reaches is indexed, in the order of (author date, id). Afterwards
    `content_find_all` gives each (revision, path) of the history in which a content occurs, and `content_find_first`
    the earliest. It may be interrupted at any point, also by the death of the process, and run again: it goes on where
    it was, and ends in the same index. Commits and entries that the index cannot hold are left out and reported.

    Args:
        repository: a bare repository, a working tree, or a linked working tree.
        storage: an open storage. It is called from several threads at once, and is not closed.
        origin_url: where the repository comes from; its heads are written as REV_IN_ORG, and it becomes the preferred
            origin of revisions that have none. None: no origin is written.
        progress: called after the commits are listed and with every call that begins or is acked, from one thread at a
            time but not always the same. It should return quickly.
        any_owner: reads the repository whoever owns it. False follows git's rule: it must belong to this user, to the
            user behind sudo, or be listed in `safe.directory`.
        settings: sizes and bounds; the defaults where None.

    Raises:
        RepositoryError: the repository cannot be read.
        GitReaderMissingError: the extra `provgate[git]` is not installed.
        StorageGaveUpError: the storage did not take or answer a call within `settings.give_up_after_s`.
        StorageError: the storage refused a call for good; also where `origin_url` is no URL that it can keep.
    """
    # Imported late, so that the package can be used to tell the user what to install.
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
        reader = DateReader(storage, calls, settings.lookup_ids)
        self._dates = KnownDates(self._tree_of, reader.contents, reader.directories)
        self._report = IndexReport()
        self._batch = Batch()

    def run(self, origin_url: str | None) -> IndexReport:
        history = read_history(self._git)
        for item in history.left_out:
            self._report.leave_out(item)
        self._meter.listed(len(history.order))
        origin = None if origin_url is None else self._add_origin(origin_url)
        for some in _pieces(history.order, self._settings.lookup_revisions):
            self._add_revisions(some, origin)
        self._flush()
        if origin is not None:
            self._add_heads(history.heads, origin)
        return self._finish(history)

    def _add_origin(self, url: str) -> Id:
        origin = hashlib.sha1(url.encode(), usedforsecurity=False).digest()
        self._calls.write("origin", 1, partial(self._storage.origin_add, {origin: url}))
        return origin

    def _add_revisions(self, some: Sequence[tuple[int, Id]], origin: Id | None) -> None:
        """Adds those of some revisions that are not finished, and a preferred origin where one is missing."""
        ids = [revision_id for _, revision_id in some]
        stored = self._calls.read("revision_get", partial(self._storage.revision_get, ids))
        new: list[tuple[Revision, Id | None]] = []
        for author_time_s, revision_id in some:
            data = stored.get(revision_id, RevisionData(None, None))
            missing_origin = origin if data.origin is None else None
            if data.date is None:
                new.append((self._revision(author_time_s, revision_id), missing_origin))
            elif missing_origin is not None:
                self._batch.add_origin(revision_id, missing_origin)
        self._meter.known(len(some) - len(new))
        self._decide(new)

    def _revision(self, author_time_s: int, revision_id: Id) -> Revision:
        commit = self._git.commit(revision_id)
        return Revision(revision_id, date_of(author_time_s), commit.root, commit.parents)

    def _decide(self, revisions: Sequence[tuple[Revision, Id | None]]) -> None:
        """Decides on revisions, looking up dates for as many at once as the bound allows."""
        waiting: list[tuple[Revision, Id | None]] = []
        for revision in revisions:
            waiting.append(revision)
            self._dates.expect(revision[0].root)
            if self._dates.expected_count >= self._settings.lookup_ids:
                self._decide_expected(waiting)
                waiting = []
        self._decide_expected(waiting)

    def _decide_expected(self, revisions: Sequence[tuple[Revision, Id | None]]) -> None:
        self._dates.look_up()
        for revision, origin in revisions:
            additions = decide(revision, self._tree_of, self._dates.contents, self._dates.directories)
            self._dates.count(additions)
            self._batch.add(revision, additions, origin)
            for item in additions.left_out:
                self._report.leave_out(item)
            if self._batch.is_full(self._settings.batch_rows, self._settings.batch_revisions):
                self._submit()
        if len(self._dates) > self._settings.dates_cached:
            self._flush()
            self._dates.forget()

    def _submit(self) -> None:
        batch, self._batch = self._batch, Batch()
        self._writer.submit(batch)

    def _flush(self) -> None:
        """Sends what is in hand, and waits until it is acked."""
        self._submit()
        self._writer.drain()

    def _add_heads(self, heads: Sequence[Id], origin: Id) -> None:
        """Writes the heads last: an origin that has them has their history too."""
        for head in heads:
            self._batch.add_row(RelationType.REV_IN_ORG, head, RelationData(origin, None))
        self._flush()

    def _finish(self, history: History) -> IndexReport:
        progress = self._meter.snapshot()
        self._report.revisions_total = progress.revisions_total
        self._report.revisions_known = progress.revisions_known
        self._report.revisions_done = progress.revisions_done
        self._report.head_count = len(history.heads)
        self._report.entries = self._meter.entries()
        return self._report


def _pieces(order: Sequence[tuple[int, Id]], count_max: int) -> Iterator[list[tuple[int, Id]]]:
    items = iter(order)
    while piece := list(islice(items, count_max)):
        yield piece
