from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from provgate_stack.errors import StackError
from provgate_stack.processes.directory import StackDirectory, remove_running, running
from provgate_stack.processes.leftovers import processes_of, role_of
from provgate_stack.processes.process import ChildProgram

# A launcher that starts a program, says so, and lives until it is killed.
LAUNCHER = """
import sys, time
from pathlib import Path
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import ChildProgram
directory = StackDirectory.claim(Path(sys.argv[1]), "launched")
outside = directory.outside_directory()
ChildProgram(["sleep", "60"], directory.environment("sleeper"), directory.path / "log").start()
if sys.argv[2:] == ["keep"]:
    directory.keep_running({"roles": ["sleeper"]})
print(outside, flush=True)
time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[StackDirectory]:
    directory = StackDirectory.claim(tmp_path / ".stack", "one")
    yield directory
    directory.remove()


def launch(root: Path, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    """Starts a launcher; returns it and the directory that it has outside."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(root), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    outside = Path(launcher.stdout.readline().strip())
    launcher.stdout.close()
    return launcher, outside


def kill(launcher: subprocess.Popen[str]) -> None:
    launcher.kill()
    launcher.wait()


def guardians(path: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if str(path) in (process.info["cmdline"] or [])]


def test_remove_ends_marked_processes_and_leaves_nothing(directory: StackDirectory) -> None:
    outside = directory.outside_directory()
    program = ChildProgram(["sleep", "60"], directory.environment("sleeper"), directory.path / "log")
    program.start()
    assert [role_of(process) for process in processes_of(directory.path)] == ["sleeper"]
    directory.remove()
    assert not program.alive
    assert not outside.exists()
    assert not directory.path.exists()
    assert guardians(directory.path) == []
    directory.remove()


def test_second_launcher_is_refused_the_same_name(directory: StackDirectory) -> None:
    with pytest.raises(StackError, match="another launcher"):
        StackDirectory.claim(directory.path.parent, "one")
    assert directory.path.exists()


def test_what_a_killed_launcher_left_is_removed_by_its_guardian(tmp_path: Path) -> None:
    launcher, outside = launch(tmp_path)
    path = tmp_path / "launched"
    assert path.exists()
    kill(launcher)
    deadline = time.monotonic() + 10
    while (path.exists() or guardians(path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not path.exists()
    assert not outside.exists()
    assert processes_of(path) == []
    assert guardians(path) == []


def test_what_launcher_and_guardian_left_is_removed_by_the_next(tmp_path: Path) -> None:
    launcher, outside = launch(tmp_path)
    for guardian in guardians(tmp_path / "launched"):
        guardian.kill()
    kill(launcher)
    assert outside.exists()
    StackDirectory.claim(tmp_path, "next").remove()
    assert list(tmp_path.iterdir()) == []
    assert not outside.exists()
    assert processes_of(tmp_path / "launched") == []


def test_stack_that_was_left_running_outlives_launchers(tmp_path: Path) -> None:
    launcher, outside = launch(tmp_path, "keep")
    path = tmp_path / "launched"
    kill(launcher)
    StackDirectory.claim(tmp_path, "next").remove()
    assert running(tmp_path) == {path: {"roles": ["sleeper"]}}
    assert [role_of(process) for process in processes_of(path)] == ["sleeper"]
    remove_running(tmp_path)
    assert running(tmp_path) == {}
    assert processes_of(path) == []
    assert not path.exists()
    assert not outside.exists()


def test_nothing_runs_where_no_stack_ever_was(tmp_path: Path) -> None:
    remove_running(tmp_path / "absent")
    assert running(tmp_path / "absent") == {}


def test_record_of_outside_directories_is_not_trusted(directory: StackDirectory, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (directory.path / "outside").write_text(f"{precious}\n/tmp\n", encoding="utf-8")
    directory.remove()
    assert precious.exists()
