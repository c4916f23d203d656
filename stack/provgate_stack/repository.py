"""What the demo asks of the git repository that it indexes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provgate_stack.errors import StackError

_PREFERRED: Final = ("README.md", "README.rst", "README", "README.txt")


@dataclass(frozen=True)
class SampleFile:
    """A file of a revision.

    Attributes:
        path: as git prints it.
        id: its content's id, hexadecimal.
    """

    path: str
    id: str


def sample_file(repository: Path) -> SampleFile:
    """Returns the README at HEAD, or the first file where there is none; at the first ref where HEAD has no commit.

    Raises:
        StackError: there is no repository, no commit or no file.
    """
    if _git(repository, "rev-parse", "--git-dir") is None:
        raise StackError(f"{repository} is not a git repository")
    revision = _some_revision(repository)
    if revision is None:
        raise StackError(f"{repository} has no commit: there is nothing to index")
    files = _files(repository, revision)
    if not files:
        raise StackError(f"{repository} has no file at {revision}: there is nothing to ask for")
    return next((files[path] for path in _PREFERRED if path in files), next(iter(files.values())))


def _some_revision(repository: Path) -> str | None:
    if _git(repository, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"):
        return "HEAD"
    refs = (_git(repository, "for-each-ref", "--format=%(refname)") or "").split()
    return refs[0] if refs else None


def _files(repository: Path, revision: str) -> dict[str, SampleFile]:
    listing = _git(repository, "ls-tree", "-r", "-z", revision) or ""
    files = {}
    for line in listing.split("\0"):
        description, _, path = line.partition("\t")
        if " blob " in description:
            files[path] = SampleFile(path, description.split()[2])
    return files


def _git(repository: Path, *arguments: str) -> str | None:
    """Returns what git prints, or None where it fails."""
    # A clone that another user owns is read too: nothing of it is run.
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise StackError("git is not installed") from error
    return answer.stdout.decode(errors="replace") if answer.returncode == 0 else None
