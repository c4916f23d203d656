"""What the indexer raises of its own; what a storage raises for good (`StorageError`) passes through as it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Sizes and bounds of an index run. All of them bound memory or waiting; none changes the result.

    Attributes:
        batch_rows: a batch is sent once it has so many relation rows. One revision's rows are never split. What is
            repeated after an interruption is at most `batches_in_flight` batches: some seconds of work.
        batch_revisions: a batch is sent once it has so many revisions.
        call_entries: how many entries one call to the storage takes at most.
        batches_in_flight: how many batches are being written at once at most.
        writers: how many threads write rows and dates.
        lookup_revisions: how many revisions are looked up in the storage at once.
        lookup_ids: a look-up is sent once it has so many new ids, and how many ids one call asks for at most.
        dates_cached: how many dates are remembered between look-ups; about 200 bytes each.
        tree_entries_cached: how many entries of trees are remembered; about 150 bytes each.
        give_up_after_s: how long one call is tried again before the index gives up.
    """

    batch_rows: int = 20_000
    batch_revisions: int = 2_000
    call_entries: int = 10_000
    batches_in_flight: int = 3
    writers: int = 8
    lookup_revisions: int = 500
    lookup_ids: int = 10_000
    dates_cached: int = 1_000_000
    tree_entries_cached: int = 500_000
    give_up_after_s: float = 300.0


class GitIndexError(Exception):
    """The base of the indexer's errors. Their texts can be shown to the user."""


class GitReaderMissingError(GitIndexError):
    """The library that reads git repositories is not installed."""


class RepositoryError(GitIndexError):
    """The repository cannot be read: no repository, damaged, or of a kind that is not supported."""


class RepositoryOwnerError(RepositoryError):
    """The repository belongs to another user, and git's rule (`safe.directory`) does not admit it."""


class ObjectMissingError(RepositoryError):
    """An object that the history needs is not in the repository."""


class StorageGaveUpError(GitIndexError):
    """The storage would not take or answer a call, however often it was tried again.

    What was acked stays; the same index, run again, goes on from there.
    """
