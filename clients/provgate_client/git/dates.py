"""The dates of contents and directories, as far as they were looked up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeAlias

from provgate_client.git.batch import pieces
from provgate_client.git.calls import StorageCalls
from provgate_client.git.decide import Additions, TreeOf
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import Id

_LookUp: TypeAlias = Callable[[list[Id]], dict[Id, datetime]]


class KnownDates:
    """Dates by content and by directory; None for an id that was looked up and has none. For one thread.

    `expect` names a directory that will be needed, `look_up` gets the dates of everything below such directories, and
    `count` adds what a revision adds, as if it were stored. An earlier date that another indexer writes meanwhile is
    not seen. Then some rows are written that are not necessary; there is no other effect.

    Args:
        tree_of: returns a tree.
        storage: where dates are looked up.
        calls: repeats look-ups until they succeed.
        ids_max: the largest number of ids in one look-up.
    """

    def __init__(self, tree_of: TreeOf, storage: ProvenanceStorageInterface, calls: StorageCalls, ids_max: int) -> None:
        self.contents: dict[Id, datetime | None] = {}
        self.directories: dict[Id, datetime | None] = {}
        self._tree_of = tree_of
        self._storage = storage
        self._calls = calls
        self._ids_max = ids_max
        self._expected_contents: set[Id] = set()
        self._expected_directories: set[Id] = set()

    def __len__(self) -> int:
        """Returns how many dates are held."""
        return len(self.contents) + len(self.directories)

    @property
    def expected_count(self) -> int:
        """How many ids `look_up` would ask for."""
        return len(self._expected_contents) + len(self._expected_directories)

    def expect(self, root: Id) -> None:
        """Notes `root` and everything below it that is not known yet."""
        waiting = [root]
        while waiting:
            directory = waiting.pop()
            # If a directory is known or expected, so is everything below it.
            if directory in self.directories or directory in self._expected_directories:
                continue
            self._expected_directories.add(directory)
            tree = self._tree_of(directory)
            self._expected_contents.update(content for _, content in tree.contents if content not in self.contents)
            waiting.extend(child for _, child in tree.directories)

    def look_up(self) -> None:
        """Gets the dates of what is expected.

        Directories come before contents, because another indexer may write between the two look-ups, and it writes the
        dates of directories last. So if a directory's date is found, the dates of its contents are found too, and none
        of them is later.

        Raises:
            StorageGaveUpError: the storage did not answer in time.
        """
        self._look_up("directory_get", self._storage.directory_get, self._expected_directories, self.directories)
        self._look_up("content_get", self._storage.content_get, self._expected_contents, self.contents)

    def _look_up(self, what: str, get: _LookUp, expected: set[Id], dates: dict[Id, datetime | None]) -> None:
        for ids in pieces(expected, self._ids_max):
            found = self._calls.read(what, partial(get, ids))
            dates.update((entry_id, found.get(entry_id)) for entry_id in ids)
        expected.clear()

    def count(self, additions: Additions) -> None:
        """Counts the dates that a revision adds as stored."""
        self.contents.update(additions.content_dates)
        self.directories.update(additions.directory_dates)

    def forget(self) -> None:
        """Forgets everything. All dates that were counted must be stored by now: they are looked up again."""
        for each in (self.contents, self.directories, self._expected_contents, self._expected_directories):
            each.clear()
