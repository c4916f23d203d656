"""The start of a program: missing extras, the ready file, and the garbage collector's threshold."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

# Messages and batches are freed by reference counts, and cycles are rare. With Python's threshold of 700 the collector
# scans them again and again: an eighth of the CPU time of relation rows from body to COPY document.
_GC_THRESHOLD: Final = 50_000


def start_program(name: str, module: str, extra: str) -> None:
    """Runs `main` of a module, or names the extra that is not installed and exits with 1.

    Args:
        name: the program, for people.
        module: the module of its command line.
        extra: the extra of the distribution with the libraries that the module needs.
    """
    try:
        main = import_module(module).main
    except ModuleNotFoundError as error:
        sys.exit(f"Error: {name} needs {error.name}, which is not installed: pip install 'provgate[{extra}]'")
    main(prog_name=name)


def write_ready_file(path: Path, text: str = "") -> None:
    """Writes `text` and a newline to `path` atomically: a reader sees all of it or no file."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(f"{text}\n", encoding="utf-8")
    unfinished.replace(path)


def collect_seldom() -> None:
    """Excludes all present objects from garbage collection, and makes it rarer. For programs, not for libraries."""
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
