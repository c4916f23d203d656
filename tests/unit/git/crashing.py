"""A storage that dies in the middle of a write."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from typing import Any

from tests.support.reference import InMemoryProvenanceStorage


class CrashError(Exception):
    """The process, as it were, is dead."""


class CrashingStorage:
    """A storage that keeps a random part of write number `crash_at` and raises; later writes raise, until `revive`."""

    def __init__(self, crash_at: int, chance: random.Random) -> None:
        self._storage = InMemoryProvenanceStorage()
        self._lives = crash_at
        self._chance = chance
        self._counting = threading.Lock()
        self._immortal = False

    def revive(self) -> None:
        self._immortal = True

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._storage, name)

        def write(*arguments: Any) -> bool:
            with self._counting:
                self._lives -= 1
                lives = self._lives
            if self._immortal or lives >= 0:
                return bool(call(*arguments))
            if lives == -1:
                call(*arguments[:-1], self._part(arguments[-1], self._chance.random()))
            raise CrashError

        return write if name.endswith("_add") else call

    def _part(self, entries: Mapping[bytes, Any], share: float) -> dict[bytes, Any]:
        """Returns a share of entries; of rows, by source, a share of each source."""
        part: dict[bytes, Any] = {}
        for key, value in entries.items():
            if isinstance(value, set):
                part[key] = {row for row in sorted(value, key=repr) if self._chance.random() < share}
            elif self._chance.random() < share:
                part[key] = value
        return part
