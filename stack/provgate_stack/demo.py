"""The demo: a git repository's history through the whole path, and a question about one of its files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from provgate_stack.errors import StackError
from provgate_stack.launcher import PREFERRED_PORT, temporary_stack
from provgate_stack.paste import lines_to_paste
from provgate_stack.ports import LOOPBACK
from provgate_stack.programs import program_path
from provgate_stack.repository import SampleFile, sample_file
from provgate_stack.stack import Stack

_SHOWN: Final = 10


def run_demo(root: Path, repository: Path, storage: str) -> None:
    """Indexes a repository, asks where a file of it appeared, and prints how to ask by hand.

    Args:
        root: the `.stack` of a clone.
        repository: with at least one commit.
        storage: what the stack runs on.

    Raises:
        StackError: the repository has nothing to index, or a program failed.
    """
    # Before anything is installed or started.
    file = sample_file(repository)
    with temporary_stack(root, "demo", storage) as stack:
        print(f"\nIndexing {repository}", flush=True)
        _provgate(stack, "index", str(repository), "--any-owner")
        _ask(stack, file)
        print("\nTo ask for yourself, run `make up` and paste (it prints its address, if it is another one):\n")
        address = f"{LOOPBACK}:{PREFERRED_PORT}"
        print(lines_to_paste(address, repository, file.id))
        print("\nStopping", flush=True)


def _ask(stack: Stack, file: SampleFile) -> None:
    print(f"\nWhere did {file.path} ({file.id}) first appear?", flush=True)
    _provgate(stack, "first", "--format", "table", file.id)
    print(f"\nWhere does it appear? (The earliest {_SHOWN} at most.)", flush=True)
    _provgate(stack, "all", "--format", "table", "--limit", str(_SHOWN), file.id)


def _provgate(stack: Stack, *arguments: str) -> None:
    # In a session of its own: a Ctrl-C is the launcher's business. The terminal is still its output.
    command = [program_path("provgate"), *arguments]
    environment = stack.client_environment()
    code = subprocess.run(command, env=environment, start_new_session=True, check=False).returncode
    if code != 0:
        raise StackError(f"`provgate {' '.join(arguments)}` ended with {code}")
