"""The lines of README.md do what it says, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from provgate_stack.stack import Stack
from tests.fix_servers import CLONE

README = (CLONE / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def block(marker: str) -> str:
    """The code block behind an HTML comment."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    if found is None:
        raise LookupError(f"README.md has no block {marker}")
    return found[1]


def console_commands(text: str) -> list[str]:
    return [command.strip() for command in re.split(r"^\$ ", text, flags=re.MULTILINE) if command.strip()]


def run(command: str, stack: Stack, stdin: str = "") -> str:
    environment = {**os.environ, **stack.client_environment(), "PATH": f"{BIN}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", command.replace("127.0.0.1:50051", stack.address)],
        env=environment,
        input=stdin,
        cwd=CLONE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_the_grpcurl_lines_write_and_find_a_content(shared_stack: Stack) -> None:
    services, added, got, related, dated, found = (
        run(command, shared_stack) for command in console_commands(block("grpcurl"))
    )
    assert "provgate.v1.ProvenanceStorage" in services.split()
    # The last of the responses tells that both messages are committed.
    assert re.findall(r'"acked_count": "(\d)"', added)[-1] == "2"
    assert '"id": "zgE2JQMLqNupBvdWln+enKOURko="' in got
    assert '"date": "2005-04-07T22:13:13Z"' in got
    assert "5p3im7LR1kNLiymud1rYwuSMU5E=" not in got
    assert re.findall(r'"acked_count": "(\d)"', related)[-1] == "1"
    assert re.findall(r'"acked_count": "(\d)"', dated)[-1] == "1"
    assert '"path": "c3JjL2hlbGxvLnR4dA=="' in found
    assert '"revision": "lKntAk04WXk2GBUupVmhaLvLteI="' in found


def test_the_python_lines_write_and_find_a_content(shared_stack: Stack) -> None:
    program = block("python").replace("127.0.0.1:50051", shared_stack.address)
    printed = run(f"{shlex.quote(sys.executable)} -", shared_stack, program)
    assert "path=b'src/test.txt'" in printed


def test_the_lines_about_ids_turn_one_form_into_the_other(shared_stack: Stack) -> None:
    to_both, from_base64, to_base64, to_hexadecimal = (
        run(command, shared_stack) for command in console_commands(block("ids"))
    )
    for printed in (to_both, from_base64):
        assert "ce013625030ba8dba906f756967f9e9ca394464a" in printed
        assert "zgE2JQMLqNupBvdWln+enKOURko=" in printed
    assert to_base64.strip() == "zgE2JQMLqNupBvdWln+enKOURko="
    assert to_hexadecimal == "ce013625030ba8dba906f756967f9e9ca394464a"
