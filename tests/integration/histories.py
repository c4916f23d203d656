"""Three public histories, as git repositories.

They are no part of the project: where they are not found beside the clone, the tests that need them are skipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

_DATA: Final = Path(__file__).resolve().parents[3] / "shared" / "data"

HISTORIES: Final = ("pika", "swh-graph", "swh-provenance")
"""Their names; the last is the smallest."""


def make_repository(name: str, directory: Path) -> Path:
    """Makes the bare repository of a history in a directory, and returns its path; skips the test without histories."""
    if not _DATA.is_dir():
        pytest.skip(f"there are no histories in {_DATA}")
    repository = directory / f"{name}.git"
    skeleton = _DATA / f"{name}.skeleton.msgpack.xz"
    subprocess.run([sys.executable, _DATA / "skeleton_to_git.py", skeleton, repository], check=True)
    return repository
