"""Python's garbage collector in a program that moves very many small objects."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final


def start_program(name: str, module: str, extra: str) -> None:
    """Runs the command line of a program, or says which extra is not installed and exits with 1.

    Args:
        name: of the program, for people.
        module: whose `main` it is.
        extra: of the distribution, with the libraries that the module needs.
    """
    try:
        main = import_module(module).main
    except ModuleNotFoundError as error:
        sys.exit(f"Error: {name} needs {error.name}, which is not installed: pip install 'provgate[{extra}]'")
    main(prog_name=name)


def write_ready_file(path: Path, text: str = "") -> None:
    """Writes `text` and a newline to `path`. Whoever sees the file sees all of it."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(f"{text}\n", encoding="utf-8")
    unfinished.replace(path)


# What a message or a batch is made of goes by reference counts, and cycles are rare: with Python's own threshold of 700
# the collector looks through it again and again, one eighth of the CPU of relation rows from body to COPY document.
_THRESHOLD: Final = 50_000


def collect_seldom() -> None:
    """Leaves what was imported alone, and looks at the rest less often. For programs, not for libraries."""
    gc.freeze()
    gc.set_threshold(_THRESHOLD)
