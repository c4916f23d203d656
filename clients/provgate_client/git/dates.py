"""The dates of contents and directories, as far as they were looked up, with those in hand counted as stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TypeAlias, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from provgate_client.git.decide import Additions, TreeOf
from provgate_client.git.progress import ProgressMeter
from provgate_client.git.settings import StorageGaveUpError
from provgate_storage.errors import RetryableStorageError
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import Id

R = TypeVar("R")

_PAUSE_S = 0.1
_PAUSE_MAX_S = 10.0


class StorageCalls:
    """Makes calls until they succeed. Thread-safe.

    A write that returns False, and any call that raises `RetryableStorageError`, is made again, after a pause that
    grows and is jittered. Every write is idempotent, so it does not matter what an attempt that failed has left.
    """

    def __init__(self, meter: ProgressMeter, give_up_after_s: float) -> None:
        self._meter = meter
        self._give_up_after_s = give_up_after_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends all pauses, and every call that would be made again. Idempotent."""
        self._stopped.set()

    def write(self, what: str, count: int, call: Callable[[], bool]) -> None:
        """Makes a write of `count` entries.

        Raises:
            StorageGaveUpError: it was never taken.
        """
        self._meter.sent(count)
        self._until_taken(what, call)
        self._meter.acked(what, count)

    def read(self, what: str, call: Callable[[], R]) -> R:
        """Makes a read.

        Raises:
            StorageGaveUpError: it was never answered.
        """
        return self._until_taken(what, call)

    def _until_taken(self, what: str, call: Callable[[], R]) -> R:
        attempts = Retrying(
            retry=retry_if_exception_type(RetryableStorageError) | retry_if_result(lambda taken: taken is False),
            wait=wait_random_exponential(_PAUSE_S, _PAUSE_MAX_S),
            stop=stop_after_delay(self._give_up_after_s) | stop_when_event_set(self._stopped),
            sleep=sleep_using_event(self._stopped),
            retry_error_callback=lambda state: _give_up(what, state),
        )
        return attempts(call)


def _give_up(what: str, state: RetryCallState) -> None:
    outcome = state.outcome
    cause = outcome.exception() if outcome is not None else None
    reason = "it was not taken" if cause is None else str(cause)
    raise StorageGaveUpError(
        f"{what}: {reason}, after {state.attempt_number} attempts; run the same index again to go on"
    ) from cause


class DateReader:
    """Reads the dates of contents and directories, at most so many ids a call."""

    def __init__(self, storage: ProvenanceStorageInterface, calls: StorageCalls, ids_max: int) -> None:
        self._storage = storage
        self._calls = calls
        self._ids_max = ids_max

    def contents(self, ids: Collection[Id]) -> dict[Id, datetime]:
        """Returns the dates of those contents that have one."""
        return self._read("content_get", self._storage.content_get, ids)

    def directories(self, ids: Collection[Id]) -> dict[Id, datetime]:
        """Returns the dates of those directories that have one."""
        return self._read("directory_get", self._storage.directory_get, ids)

    def _read(
        self, what: str, get: Callable[[list[Id]], dict[Id, datetime]], ids: Collection[Id]
    ) -> dict[Id, datetime]:
        found: dict[Id, datetime] = {}
        waiting = iter(ids)
        while piece := list(islice(waiting, self._ids_max)):
            found.update(self._calls.read(what, partial(get, piece)))
        return found


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
