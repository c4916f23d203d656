"""The index of one git repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from provgate_client.git.report import IndexProgress, IndexReport
from provgate_client.git.settings import IndexSettings
from provgate_storage.interface import ProvenanceStorageInterface

ProgressCallback = Callable[[IndexProgress], None]


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
        progress: called after the commits are listed and after every acked call, from one thread at a time but not
            always the same. It should return quickly.
        any_owner: reads the repository whoever owns it. False follows git's rule: it must belong to this user, to the
            user behind sudo, or be listed in `safe.directory`.
        settings: sizes and bounds; the defaults where None.

    Raises:
        RepositoryError: the repository cannot be read.
        GitReaderMissingError: the extra `provgate[git]` is not installed.
        StorageGaveUpError: the storage did not take or answer a call within `settings.give_up_after_s`.
        StorageError: the storage refused a call for good; also where `origin_url` is no URL that it can keep.
    """
    raise NotImplementedError
