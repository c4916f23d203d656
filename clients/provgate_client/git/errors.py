"""What the indexer raises of its own; what a storage raises for good (`StorageError`) passes through as it is."""

from __future__ import annotations


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
