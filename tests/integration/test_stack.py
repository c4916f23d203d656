"""The launcher: demo, up, down, and what is left when it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from provgate_stack.launcher import BACKGROUND
from provgate_stack.processes.leftovers import DIRECTORY_VARIABLE, processes_of
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.servers.selection import STORAGES

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.org")


class Launcher:
    """A launcher with a root of its own, so that it meets no stack of the clone.

    Attributes:
        outside: every directory outside the root that was seen while it ran.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outside: set[Path] = set()

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, output)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command, *rest = arguments
        launcher = [sys.executable, "-m", "provgate_stack", command, "--root", str(self.root), *rest]
        return subprocess.Popen(
            # Whatever this process ignores.
            ["env", "--default-signal=INT,TERM,HUP", *launcher],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, pattern: str, process: subprocess.Popen[str]) -> None:
        """Returns as soon as a file below the root matches; the process is to make it."""
        while not any(self.root.glob(pattern)):
            if process.poll() is not None:
                pytest.fail(f"ended before there was {pattern}:\n{process.communicate()[0]}")
            time.sleep(0.01)
        self.note_outside()

    def note_outside(self) -> None:
        for record in self.root.glob("*/outside"):
            self.outside.update(Path(line) for line in record.read_text(encoding="utf-8").splitlines())

    def processes(self) -> list[psutil.Process]:
        """Returns every process that a launcher of this root started, guardians too."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def assert_nothing_is_left(self) -> None:
        assert self.processes() == []
        assert list(self.root.iterdir()) == []
        assert [path for path in self.outside if path.exists()] == []

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            mark = process.environ().get(DIRECTORY_VARIABLE, "")
            return mark.startswith(str(self.root)) or any(part.startswith(str(self.root)) for part in process.cmdline())
        except psutil.Error:
            return False


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path / ".stack")
    yield launcher
    launcher.run("down")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of two commits, of which the second adds a copy of the README of the first."""
    path = tmp_path / "repository"
    path.mkdir()
    _git(path, "init", "--quiet")
    (path / "README.md").write_text("A project.\n", encoding="utf-8")
    _commit(path, "First", "2001-02-03T04:05:06Z")
    (path / "COPY.md").write_text("A project.\n", encoding="utf-8")
    _commit(path, "Second", "2002-02-03T04:05:06Z")
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_demo_finds_the_first_occurrence_and_leaves_nothing(launcher: Launcher, repository: Path, storage: str) -> None:
    done = launcher.run("demo", "--repo", str(repository), "--storage", storage)
    assert done.returncode == 0, done.stdout
    first, second = _git(repository, "rev-list", "--reverse", "HEAD").split()
    assert first in _section(done.stdout, "first appear")
    assert second not in _section(done.stdout, "first appear")
    assert second in _section(done.stdout, "Where does it appear")
    assert "grpcurl" in done.stdout
    launcher.assert_nothing_is_left()


def test_demo_uses_servers_that_exist_and_leaves_what_it_wrote(
    launcher: Launcher, repository: Path, rabbitmq_node: RabbitMqNode, amqp_url: str, postgres_dsn: str
) -> None:
    done = launcher.run(
        "demo", "--repo", str(repository), PROVGATE_AMQP_URL=amqp_url, PROVGATE_POSTGRES_DSN=postgres_dsn
    )
    assert done.returncode == 0, done.stdout
    assert launcher.outside == set()
    vhost = amqp_url.rpartition("/")[2]
    assert len(rabbitmq_node.ctl("list_queues", "--vhost", vhost, "name").split()) >= 160
    connection = psycopg2.connect(postgres_dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
            assert (cursor.fetchone() or (0,))[0] > 0
    finally:
        connection.close()


def test_demo_of_an_empty_repository_starts_nothing(launcher: Launcher, tmp_path: Path) -> None:
    _git(tmp_path, "init", "--quiet", "empty")
    done = launcher.run("demo", "--repo", str(tmp_path / "empty"))
    assert done.returncode == 1
    assert "has no commit" in done.stdout
    assert not launcher.root.exists()


@pytest.mark.parametrize("storage", STORAGES)
def test_up_stays_until_down(launcher: Launcher, storage: str) -> None:
    up = launcher.run("up", "--storage", storage)
    assert up.returncode == 0, up.stdout
    launcher.note_outside()
    (other,) = STORAGES.keys() - {storage}
    assert other not in processes_of(launcher.root / BACKGROUND).values()
    (address,) = set(re.findall(r"(?<!http://)127\.0\.0\.1:\d+", up.stdout))
    grpcurl = str(Path(sys.executable).parent / "grpcurl")
    listed = subprocess.run([grpcurl, "-plaintext", address, "list"], capture_output=True, text=True, check=True)
    assert "provgate.v1.ProvenanceStorage" in listed.stdout

    again = launcher.run("up", "--storage", storage)
    assert again.returncode == 0
    assert "up already" in again.stdout
    assert address in again.stdout
    elsewhere = launcher.run("up", "--storage", other)
    assert elsewhere.returncode == 1
    assert f"a stack on {STORAGES[storage]} is up" in elsewhere.stdout

    assert launcher.run("down").returncode == 0
    launcher.assert_nothing_is_left()
    assert "No stack is up" in launcher.run("down").stdout


def test_up_that_lost_a_process_says_so(launcher: Launcher) -> None:
    assert launcher.run("up").returncode == 0
    launcher.note_outside()
    (gateway,) = [process for process in launcher.processes() if any("gateway" in part for part in process.cmdline())]
    gateway.kill()
    again = launcher.run("up")
    assert again.returncode == 1
    assert "lost its gateway" in again.stdout
    assert launcher.run("down").returncode == 0
    launcher.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("pattern", "signals"),
    [
        ("*/postgresql/initdb.log", [signal.SIGINT]),
        ("*/rabbitmq/rabbitmq.log", [signal.SIGINT, signal.SIGINT]),
        ("*/rabbitmq/mnesia", [signal.SIGTERM]),
        ("*/workers-0.log", [signal.SIGINT, signal.SIGTERM]),
        ("*/gateway-0.log", [signal.SIGHUP]),
    ],
)
def test_interruption_leaves_nothing(launcher: Launcher, pattern: str, signals: list[signal.Signals]) -> None:
    process = launcher.start("up")
    launcher.wait_for(pattern, process)
    for number in signals:
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signals[0], output
    launcher.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("storage", "pattern"),
    [
        ("postgresql", "*/rabbitmq/mnesia"),
        ("postgresql", "*/workers-0.ready"),
        ("mongodb", "*/mongodb/data/WiredTiger"),
    ],
)
def test_killed_launcher_is_cleaned_up_after(launcher: Launcher, storage: str, pattern: str) -> None:
    process = launcher.start("up", "--storage", storage)
    launcher.wait_for(pattern, process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while launcher.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.assert_nothing_is_left()


def _section(output: str, heading: str) -> str:
    """Returns the lines between the one that holds `heading` and the next empty one."""
    return output.partition(heading)[2].partition("\n\n")[0]


def _commit(repository: Path, subject: str, date: str) -> None:
    _git(repository, "add", ".")

    command = ["git", *IDENTITY, "-C", str(repository), "commit", "--quiet", "--message", subject, "--date", date]
    subprocess.run(command, check=True)


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
