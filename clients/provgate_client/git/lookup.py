"""Look-ups of stored dates, cut into calls."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from itertools import islice

from provgate_client.git.calls import StorageCalls
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import Id


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
