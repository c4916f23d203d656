"""How a worker program logs."""

from __future__ import annotations

import logging
import sys
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")

_FORMAT: Final = "%(asctime)s %(levelname)s provgate-workers[%(process)d] %(message)s"


def set_up_log(level: str) -> None:
    """Has everything from `level` on logged to standard error.

    Args:
        level: one of `LEVELS`.
    """
    logging.basicConfig(level=level.upper(), format=_FORMAT, stream=sys.stderr, force=True)
    # What it says of a lost connection, the link says too, in one line.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
