"""The dates of contents and directories, as far as they were looked up, with those in hand counted as stored."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import TypeAlias

from provgate_client.git.decide import Additions, TreeOf
from provgate_storage.model import Id

LookUp: TypeAlias = Callable[[Collection[Id]], dict[Id, datetime]]


class KnownDates:
    """Dates by content and by directory; None for what was looked up and has none.

    `expect` names a directory that will be needed, `look_up` gets the dates of everything below those, `count` adds
    what a revision adds. A date that another indexer makes earlier meanwhile is not seen: rows are written that would
    not have been needed, and nothing else happens.

    For one thread.
    """

    def __init__(self, tree_of: TreeOf, look_up_contents: LookUp, look_up_directories: LookUp) -> None:
        self._tree_of = tree_of
        self._look_up_contents = look_up_contents
        self._look_up_directories = look_up_directories
        self.contents: dict[Id, datetime | None] = {}
        self.directories: dict[Id, datetime | None] = {}
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
        """Notes everything below `root`, itself included, that is not known yet."""
        waiting = [root]
        while waiting:
            directory = waiting.pop()
            # What is below a directory is known or expected from the moment on that the directory itself is.
            if directory in self.directories or directory in self._expected_directories:
                continue
            self._expected_directories.add(directory)
            tree = self._tree_of(directory)
            self._expected_contents.update(content for _, content in tree.contents if content not in self.contents)
            waiting.extend(child for _, child in tree.directories)

    def look_up(self) -> None:
        """Gets the dates of what is expected. Raises what the look-ups raise.

        Directories first: another indexer may write in between, and its directories' dates go last. So the contents
        of a directory whose date is found have dates that are found too, and none later.
        """
        for into, expected, look_up in (
            (self.directories, self._expected_directories, self._look_up_directories),
            (self.contents, self._expected_contents, self._look_up_contents),
        ):
            found = look_up(expected) if expected else {}
            into.update((entry_id, found.get(entry_id)) for entry_id in expected)
            expected.clear()

    def count(self, additions: Additions) -> None:
        """Counts the dates that a revision adds as stored."""
        self.contents.update(additions.content_dates)
        self.directories.update(additions.directory_dates)

    def forget(self) -> None:
        """Forgets everything. Only right when no date is in hand: what is looked up next must be what was counted."""
        self.contents.clear()
        self.directories.clear()
        self._expected_contents.clear()
        self._expected_directories.clear()
