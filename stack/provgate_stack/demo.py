"""The demo: index a git repository through the whole stack, and ask about one of its files."""

from __future__ import annotations

import base64
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provgate_stack.errors import StackError
from provgate_stack.launcher import PREFERRED_PORT, temporary_stack
from provgate_stack.processes.process import LOOPBACK
from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack

_PREFERRED: Final = ("README.md", "README.rst", "README", "README.txt")
_SHOWN: Final = 10

_LINES: Final = """\
    .venv/bin/provgate index {repository}
    .venv/bin/provgate first {hexadecimal}

    .venv/bin/grpcurl -plaintext {address} list
    .venv/bin/grpcurl -plaintext -d '{{"id": "{base64}"}}' {address} provgate.v1.ProvenanceStorage/ContentFindFirst

    .venv/bin/python - <<'EOF'
    from provgate_storage import get_provenance_storage
    with get_provenance_storage(cls="grpc", url="{address}") as storage:
        print(storage.content_find_first(bytes.fromhex("{hexadecimal}")))
    EOF"""


def run_demo(root: Path, repository: Path, storage: str) -> None:
    """Indexes a repository, asks where a file of it appeared, and prints how to ask by hand.

    Args:
        root: the `.stack` of a clone.
        repository: a repository with at least one commit.
        storage: the storage of the stack.

    Raises:
        StackError: the repository has nothing to index, or a program failed.
    """
    # Before anything is installed or started.
    file = sample_file(repository)
    with temporary_stack(root, "demo", storage) as stack:
        print(f"\nIndexing {repository}", flush=True)
        _provgate(stack, "index", str(repository), "--any-owner")
        print(f"\nWhere did {file.path} ({file.id}) first appear?", flush=True)
        _provgate(stack, "first", "--format", "table", file.id)
        print(f"\nWhere does it appear? (The earliest {_SHOWN} at most.)", flush=True)
        _provgate(stack, "all", "--format", "table", "--limit", str(_SHOWN), file.id)
        print("\nTo ask for yourself, run `make up` and paste (it prints its address, if it is another one):\n")
        print(lines_to_paste(f"{LOOPBACK}:{PREFERRED_PORT}", repository, file.id))
        print("\nStopping", flush=True)


def _provgate(stack: Stack, *arguments: str) -> None:
    # In a session of its own: the launcher handles Ctrl-C. The terminal is still its output.
    command = [program_path("provgate"), *arguments]
    environment = stack.client_environment()
    code = subprocess.run(command, env=environment, start_new_session=True, check=False).returncode
    if code != 0:
        raise StackError(f"`provgate {' '.join(arguments)}` ended with {code}")


def lines_to_paste(address: str, repository: Path, content_id: str) -> str:
    """Returns lines for the shell that index a repository, and ask with CLI, grpcurl and Python where a content is.

    Args:
        address: the gateway's address.
        repository: the repository to index.
        content_id: 40 hexadecimal digits. grpcurl takes ids in base64, because JSON has no bytes.
    """
    return _LINES.format(
        address=address,
        repository=shlex.quote(str(repository)),
        hexadecimal=content_id,
        base64=base64.b64encode(bytes.fromhex(content_id)).decode("ascii"),
    )


@dataclass(frozen=True)
class SampleFile:
    """A file of a revision.

    Attributes:
        path: its path as git prints it.
        id: its content's id, hexadecimal.
    """

    path: str
    id: str


def sample_file(repository: Path) -> SampleFile:
    """Returns the README at HEAD, or the first file if there is none; at the first ref if HEAD has no commit.

    Raises:
        StackError: there is no repository, no commit or no file.
    """
    if _git(repository, "rev-parse", "--git-dir") is None:
        raise StackError(f"{repository} is not a git repository")
    revision = "HEAD"
    if not _git(repository, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"):
        refs = (_git(repository, "for-each-ref", "--format=%(refname)") or "").split()
        if not refs:
            raise StackError(f"{repository} has no commit: there is nothing to index")
        revision = refs[0]
    files = {}
    for line in (_git(repository, "ls-tree", "-r", "-z", revision) or "").split("\0"):
        description, _, path = line.partition("\t")
        if " blob " in description:
            files[path] = SampleFile(path, description.split()[2])
    if not files:
        raise StackError(f"{repository} has no file at {revision}: there is nothing to ask for")
    return next((files[path] for path in _PREFERRED if path in files), next(iter(files.values())))


def _git(repository: Path, *arguments: str) -> str | None:
    """Returns the output of git, or None if it fails."""
    # A clone of another user is read too: nothing of it is run.
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise StackError("git is not installed") from error
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
