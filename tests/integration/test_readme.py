"""The lines of README.md do what it says, as they stand there: in a clone, on the stack of `make up`.

Its usual port is taken, so that lines which lead to that port lead to a program that is not a gateway.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from provgate_stack.launcher import PREFERRED_PORT, running_stack
from provgate_stack.processes.process import free_port
from tests.support.fix_servers import CLONE

README = (CLONE / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PROVGATE_", "SWH_"))}
ENVIRONMENT["PATH"] = f"{BIN}:{os.environ['PATH']}"


def block(marker: str) -> str:
    """The code block behind an HTML comment."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    if found is None:
        raise LookupError(f"README.md has no block {marker}")
    return found[1]


def console_commands(text: str) -> list[str]:
    return [command.strip() for command in re.split(r"^\$ ", text, flags=re.MULTILINE) if command.strip()]


MAKE_UP, *PREPARATIONS = console_commands(block("up"))


def run(clone: Path, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        ["bash", "-c", command],
        env=environment_after(clone, "\n".join(PREPARATIONS)),
        input=stdin,
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@cache
def environment_after(clone: Path, commands: str) -> dict[str, str]:
    """The variables of a shell in which the user entered commands."""
    shell = ["bash", "-c", f"set -e\n{commands}\nenv -0"]
    printed = subprocess.run(shell, env=ENVIRONMENT, cwd=clone, capture_output=True, text=True, check=True).stdout
    return dict(variable.split("=", 1) for variable in printed.split("\0") if variable)


def launch(clone: Path, command: str) -> str:
    # What the target of the Makefile runs, without a virtual environment of the clone's own.
    launcher = [sys.executable, "-m", "provgate_stack", command, "--root", str(clone / ".stack")]
    return subprocess.run(
        launcher, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=120
    ).stdout


@pytest.fixture(scope="module")
def taken_port() -> Iterator[None]:
    """The usual port is taken while the module runs, by a program that answers nothing."""
    with socket.socket() as other:
        if free_port(PREFERRED_PORT) == PREFERRED_PORT:
            other.bind(("127.0.0.1", PREFERRED_PORT))
            other.listen()
        yield


@pytest.fixture(scope="module")
def said_by_up() -> list[str]:
    return []


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, taken_port: None, said_by_up: list[str]) -> Iterator[Path]:
    """A clone whose stack is up."""
    path = tmp_path_factory.mktemp("readme") / "provgate"
    subprocess.run(["git", "clone", "--quiet", str(CLONE), str(path)], check=True)
    assert MAKE_UP == "make up"
    try:
        said_by_up.append(launch(path, "up"))
        yield path
    finally:
        launch(path, "down")
        assert [*(path / ".stack").iterdir()] == []


def address(clone: Path) -> str:
    facts = running_stack(clone / ".stack")
    assert facts is not None
    return facts.gateway


def test_up_warns_that_its_gateway_has_not_the_usual_port(clone: Path, said_by_up: list[str]) -> None:
    assert not address(clone).endswith(f":{PREFERRED_PORT}")
    assert f"port {PREFERRED_PORT} is taken" in said_by_up[0]


def test_index_says_first_which_gateway_it_writes_to_and_the_others_read_there(clone: Path) -> None:
    index, first, everywhere, empty = console_commands(block("index"))
    told = run(clone, index).stderr.splitlines()
    assert told[0].startswith(f"gateway: {address(clone)} ({clone}/.stack/up/")
    assert '"path"' in run(clone, first).stdout
    assert '"path"' in run(clone, everywhere).stdout
    assert '"path"' in run(clone, empty).stdout


def test_what_is_added_is_there(clone: Path) -> None:
    add, get = console_commands(block("add"))
    run(clone, add)
    assert "2005-04-07T22:13:13+00:00" in run(clone, get).stdout


def test_outside_the_clone_the_stack_is_not_found(clone: Path) -> None:
    shown = subprocess.run(
        [BIN / "provgate", "config", "get", "provenance.storage.url"],
        env=ENVIRONMENT,
        cwd=clone.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"localhost:{PREFERRED_PORT}\n"


def test_the_grpcurl_lines_write_and_find_a_content(clone: Path) -> None:
    services, added, got, related, dated, found = (
        run(clone, command).stdout for command in console_commands(block("grpcurl"))
    )
    assert "provgate.v1.ProvenanceStorage" in services.split()
    # The last of the responses tells that both messages are committed.
    assert re.findall(r'"acked_count": "(\d)"', added)[-1] == "2"
    assert '"id": "zgE2JQMLqNupBvdWln+enKOURko="' in got
    assert '"date": "2005-04-07T22:13:13Z"' in got
    assert re.findall(r'"acked_count": "(\d)"', related)[-1] == "1"
    assert re.findall(r'"acked_count": "(\d)"', dated)[-1] == "1"
    assert '"path": "c3JjL2hlbGxvLnR4dA=="' in found
    assert '"revision": "lKntAk04WXk2GBUupVmhaLvLteI="' in found


def test_the_python_lines_write_and_find_a_content(clone: Path) -> None:
    printed = run(clone, f"{shlex.quote(sys.executable)} -", block("python")).stdout
    assert "path=b'src/test.txt'" in printed


def test_the_lines_about_ids_turn_one_form_into_the_other(clone: Path) -> None:
    to_both, from_base64, to_base64, to_hexadecimal = (
        run(clone, command).stdout for command in console_commands(block("ids"))
    )
    for printed in (to_both, from_base64):
        assert "ce013625030ba8dba906f756967f9e9ca394464a" in printed
        assert "zgE2JQMLqNupBvdWln+enKOURko=" in printed
    assert to_base64.strip() == "zgE2JQMLqNupBvdWln+enKOURko="
    assert to_hexadecimal == "ce013625030ba8dba906f756967f9e9ca394464a"
