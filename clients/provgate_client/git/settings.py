"""The bounds of an index run, and the errors of the indexer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Sizes and bounds of an index run. They bound memory or time; none changes the result.

    Attributes:
        batch_rows: a batch is sent when it has this many relation rows. The rows of one revision are never split. After
            an interruption at most `batches_in_flight` batches are repeated: some seconds of work.
        batch_revisions: a batch is sent when it has this many revisions.
        call_entries: the largest number of entries in one call to the storage.
        batches_in_flight: how many batches are written at once.
        writers: how many threads write rows and dates.
        lookup_revisions: how many revisions are looked up in the storage at once.
        lookup_ids: dates are looked up when this many ids are new; also the largest number of ids in one call.
        dates_cached: how many dates are kept between look-ups; about 200 bytes each.
        tree_entries_cached: how many entries of trees are kept; about 150 bytes each.
        give_up_after_s: how long one call is repeated before the index gives up.
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
    """The base of the indexer's errors. Their texts are for the user."""


class GitReaderMissingError(GitIndexError):
    """The library that reads git repositories is not installed."""


class RepositoryError(GitIndexError):
    """The repository cannot be read: there is none, it is damaged, or its format is not supported."""


class RepositoryOwnerError(RepositoryError):
    """The repository belongs to another user, and git's rule (`safe.directory`) does not allow it."""


class ObjectMissingError(RepositoryError):
    """An object that the history needs is not in the repository."""


class StorageGaveUpError(GitIndexError):
    """The storage refused or did not answer a call, although it was repeated.

    What was acked is stored. The same index, run again, continues from there.
    """
