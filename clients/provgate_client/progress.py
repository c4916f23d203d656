"""How far a write has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class WriteProgress:
    """Counts of entries that never decrease; received >= published >= acked.

    Attributes:
        received_count: entries that the gateway has read and found valid.
        published_count: entries that the broker holds safely, or held until they were acked.
        acked_count: entries that are committed in the local storage.
    """

    received_count: int = 0
    published_count: int = 0
    acked_count: int = 0


ProgressCallback: TypeAlias = Callable[[str, WriteProgress], None]
"""Called with the name of the method that writes ("content_add") and the counts of that one call of it, resends
included, in the thread that made the call: from many threads at once where many write. What it raises ends the call."""
