"""A stack's directory, the clean-up after a killed launcher, and interruptions."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from provgate_stack.errors import StackError
from provgate_stack.processes.directory import StackDirectory, remove_running, running
from provgate_stack.processes.leftovers import processes_of
from provgate_stack.processes.process import ChildProgram

# A launcher that starts a program with a descendant in a session of its own, and lives until it is killed.
LAUNCHER = """
import sys, time
from pathlib import Path
from provgate_stack.processes.directory import RunningStack, StackDirectory
from provgate_stack.processes.process import ChildProgram
directory = StackDirectory.claim(Path(sys.argv[1]), "launched")
outside = directory.outside_directory()
command = ["sh", "-c", "setsid env --ignore-environment sleep 60 & sleep 60"]
ChildProgram(command, directory.environment("sleeper"), directory.path / "log").start()
if sys.argv[2:] == ["keep"]:
    directory.keep_running(
        RunningStack(storage="mongodb", gateway="a:1", config="c", logs="l", metrics=["b:2"], roles=["sleeper"])
    )
print(outside, flush=True)
time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[StackDirectory]:
    directory = StackDirectory.claim(tmp_path / ".stack", "one")
    yield directory
    directory.remove()


def launch(root: Path, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    """Starts a launcher; returns it and its directory outside the root."""
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


def names_of(path: Path) -> set[str]:
    return {f"{role}: {process.name()}" for process, role in processes_of(path).items()}


def test_remove_ends_marked_processes_and_leaves_nothing(directory: StackDirectory) -> None:
    outside = directory.outside_directory()
    program = ChildProgram(["sleep", "60"], directory.environment("sleeper"), directory.path / "log")
    program.start()
    assert list(processes_of(directory.path).values()) == ["sleeper"]
    # As of a server that wrote no more than its pid before it was killed.
    (outside / "postmaster.pid").write_text("1\n", encoding="utf-8")
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


def test_the_guardian_of_a_killed_launcher_removes_everything(tmp_path: Path) -> None:
    launcher, outside = launch(tmp_path)
    path = tmp_path / "launched"
    deadline = time.monotonic() + 10
    while names_of(path) != {"sleeper: sh", "sleeper: sleep"} and time.monotonic() < deadline:
        time.sleep(0.01)
    # One of the two is in a session of its own, without the mark.
    sleepers = [process for process in processes_of(path) if process.name() == "sleep"]
    assert len(sleepers) == 2
    kill(launcher)
    while (path.exists() or guardians(path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not path.exists()
    assert not outside.exists()
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in sleepers)
    assert guardians(path) == []


def test_the_next_launcher_removes_what_a_killed_launcher_and_guardian_left(tmp_path: Path) -> None:
    launcher, outside = launch(tmp_path)
    for guardian in guardians(tmp_path / "launched"):
        guardian.kill()
    kill(launcher)
    assert outside.exists()
    StackDirectory.claim(tmp_path, "next").remove()
    assert list(tmp_path.iterdir()) == []
    assert not outside.exists()
    assert processes_of(tmp_path / "launched") == {}


def test_a_stack_that_was_left_running_outlives_launchers(tmp_path: Path) -> None:
    launcher, outside = launch(tmp_path, "keep")
    path = tmp_path / "launched"
    kill(launcher)
    StackDirectory.claim(tmp_path, "next").remove()
    assert {directory: facts.roles for directory, facts in running(tmp_path).items()} == {path: ["sleeper"]}
    assert set(processes_of(path).values()) == {"sleeper"}
    remove_running(tmp_path)
    assert running(tmp_path) == {}
    assert processes_of(path) == {}
    assert not path.exists()
    assert not outside.exists()


def test_nothing_runs_without_a_stack(tmp_path: Path) -> None:
    remove_running(tmp_path / "absent")
    assert running(tmp_path / "absent") == {}


def test_the_record_of_outside_directories_is_not_trusted(directory: StackDirectory, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (directory.path / "outside").write_text(f"{precious}\n/tmp\n", encoding="utf-8")
    directory.remove()
    assert precious.exists()


# Cleans up in two steps, with a second signal between them.
INTERRUPTED = """
import os, signal
from provgate_stack.command_line import Interrupted, raise_when_interrupted, uninterrupted
raise_when_interrupted()
try:
    with uninterrupted():
        os.kill(os.getpid(), signal.Signals({number}))
        print("shielded")
    print("never")
except Interrupted as interrupted:
    os.kill(os.getpid(), signal.SIGTERM)
    print("cleaned", interrupted.exit_code)
"""

IGNORED = """
import os, signal
from provgate_stack.command_line import raise_when_interrupted
raise_when_interrupted()
os.kill(os.getpid(), signal.SIGHUP)
print("alive")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_raises_after_the_shield_and_the_second_is_ignored(number: signal.Signals) -> None:
    program = INTERRUPTED.format(number=int(number))
    # Whatever this process ignores.
    command = ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["shielded", "cleaned", str(128 + number)]
    assert done.returncode == 0


def test_an_ignored_signal_stays_ignored() -> None:
    command = ["env", "--ignore-signal=HUP", sys.executable, "-c", IGNORED]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "alive\n"
