"""The file by which a program says that it is ready."""

from __future__ import annotations

import os
from pathlib import Path


def write_ready_file(path: Path, text: str = "") -> None:
    """Writes `text` and a newline to `path`. Whoever sees the file sees all of it."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(f"{text}\n", encoding="utf-8")
    unfinished.replace(path)
