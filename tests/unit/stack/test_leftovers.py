"""What a stack leaves behind goes, whatever is ending at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from provgate_stack.processes import leftovers
from provgate_stack.processes.leftovers import remove_stack


def test_a_server_that_stops_meanwhile_leaves_no_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    (stack / "data").mkdir(parents=True)
    pid_file = stack / "data" / "postmaster.pid"
    pid_file.write_text("1\n")

    def end(_directory: Path, _data_directories: Sequence[Path]) -> None:
        pid_file.unlink()

    monkeypatch.setattr(leftovers, "_end_processes", end)
    remove_stack(stack)
    assert not stack.exists()
