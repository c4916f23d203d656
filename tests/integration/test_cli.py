"""`provgate` over a gateway, a broker, workers and a database that run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provgate_stack.stack import Stack
from tests.support.git_program import commit_file, git

PROVGATE = str(Path(sys.executable).with_name("provgate"))


class Provgate:
    """The program, with the stack's configuration."""

    def __init__(self, stack: Stack) -> None:
        self._environment = {**os.environ, **stack.client_environment()}

    def run(self, *arguments: str, stdin: str = "", exit_code: int = 0) -> str:
        done = subprocess.run(
            [PROVGATE, *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == exit_code, done.stderr
        return done.stdout

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*arguments).splitlines()]


@pytest.fixture
def provgate(shared_stack: Stack) -> Provgate:
    return Provgate(shared_stack)


@pytest.mark.parametrize(
    ("noun", "ids", "rows"),
    [
        ("contents", ["01" * 20], [{"id": "01" * 20, "date": "0001-01-01T00:00:00+00:00"}]),
        ("directories", ["02" * 20], [{"id": "02" * 20, "date": "9999-12-31T23:59:59.999999+00:00"}]),
        (
            "revisions",
            ["03" * 20, "04" * 20],
            [{"id": "03" * 20, "origin": "05" * 20}, {"id": "04" * 20, "date": "1969-12-31T23:59:59.000001+00:00"}],
        ),
        ("origins", ["05" * 20], [{"id": "05" * 20, "url": "https://example.org/ü"}]),
        (
            "relation content_in_directory",
            ["06" * 20],
            [
                {"src": "06" * 20, "dst": "07" * 20, "path": "é\n"},
                {"src": "06" * 20, "dst": "07" * 20, "path_hex": "ff"},
            ],
        ),
        ("relation revision_in_origin", ["08" * 20], [{"src": "08" * 20, "dst": "05" * 20}]),
    ],
)
def test_what_is_added_is_got(provgate: Provgate, noun: str, ids: list[str], rows: list[dict[str, Any]]) -> None:
    provgate.run("add", *noun.split(), stdin="\n".join(map(json.dumps, rows)))
    printed = provgate.run("get", *noun.split(), *ids)
    assert sorted(map(json.loads, printed.splitlines()), key=str) == sorted(rows, key=str)
    provgate.run("add", *noun.split(), stdin=printed)
    assert sorted(provgate.run("get", *noun.split(), *ids).splitlines()) == sorted(printed.splitlines())


def test_a_repository_is_indexed_and_its_files_are_found(provgate: Provgate, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "link").symlink_to("file")
    for number, text in enumerate(["first", "second", "first"]):
        commit_file(tmp_path, "file", text, date=946_681_200 + number)
    oldest = git(tmp_path, "rev-list", "--all").splitlines()[-1]
    provgate.run("index", str(tmp_path), "--origin", "https://example.org/r.git")

    (row,) = provgate.rows("first", str(tmp_path / "file"))
    assert (row["revision"], row["path"], row["origin"]) == (oldest, "file", "https://example.org/r.git")
    assert row["date"] == "1999-12-31T23:00:00+00:00"
    assert len(provgate.rows("all", str(tmp_path / "file"))) == 2
    assert [row["path"] for row in provgate.rows("all", str(tmp_path / "link"))] == ["link"] * 3
    assert provgate.run("first", "f" * 40, exit_code=1) == ""


def test_the_stack_s_configuration_file_is_a_client_s(shared_stack: Stack) -> None:
    done = subprocess.run(
        [PROVGATE, "--config", str(shared_stack.config), "get", "all", "origins"],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("PROVGATE_")},
    )
    assert (done.returncode, done.stderr) == (0, "")
