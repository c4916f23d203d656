"""Python's garbage collector in a program that moves very many small objects."""

from __future__ import annotations

import gc
from typing import Final

# What a message or a batch is made of goes by reference counts, and cycles are rare: with Python's own threshold of 700
# the collector looks through it again and again, one eighth of the CPU of relation rows from body to COPY document.
_THRESHOLD: Final = 50_000


def collect_seldom() -> None:
    """Leaves what was imported alone, and looks at the rest less often. For programs, not for libraries."""
    gc.freeze()
    gc.set_threshold(_THRESHOLD)
