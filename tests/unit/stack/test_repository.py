from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provgate_stack.demo import sample_file
from provgate_stack.errors import StackError

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.org")


def git(repository: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    return tmp_path


def commit(repository: Path, **files: str) -> None:
    for name, text in files.items():
        (repository / name).write_text(text, encoding="utf-8")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "A commit")


def test_readme_is_preferred(repository: Path) -> None:
    commit(repository, A="a", **{"README.md": "read"})
    file = sample_file(repository)
    assert file.path == "README.md"
    assert file.id == git(repository, "hash-object", "README.md")


def test_first_file_serves_where_there_is_no_readme(repository: Path) -> None:
    commit(repository, B="b", A="a\tä")
    assert sample_file(repository).path == "A"


def test_branch_serves_where_head_has_no_commit(repository: Path) -> None:
    commit(repository, A="a")
    git(repository, "symbolic-ref", "HEAD", "refs/heads/unborn")
    assert sample_file(repository).path == "A"


def test_no_commit_no_file_and_no_repository_are_told_apart(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(StackError, match="has no commit"):
        sample_file(repository)
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    with pytest.raises(StackError, match="has no file"):
        sample_file(repository)
    with pytest.raises(StackError, match="not a git repository"):
        sample_file(tmp_path_factory.mktemp("plain"))
    with pytest.raises(StackError, match="not a git repository"):
        sample_file(repository / "absent")
