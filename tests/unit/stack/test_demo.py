"""The file that the demo asks about, and the lines that it prints."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from provgate_stack.demo import lines_to_paste, sample_file
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


def test_first_file_without_a_readme_and_first_branch_without_a_head(repository: Path) -> None:
    commit(repository, B="b", A="a\tä")
    assert sample_file(repository).path == "A"
    git(repository, "symbolic-ref", "HEAD", "refs/heads/unborn")
    assert sample_file(repository).path == "A"


def test_no_commit_no_file_and_no_repository_have_different_messages(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(StackError, match="has no commit"):
        sample_file(repository)
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    with pytest.raises(StackError, match="has no file"):
        sample_file(repository)
    for path in (tmp_path_factory.mktemp("plain"), repository / "absent"):
        with pytest.raises(StackError, match="not a git repository"):
            sample_file(path)


def test_lines_have_the_address_and_the_id_in_both_forms() -> None:
    content_id = bytes(range(20))
    lines = lines_to_paste("127.0.0.1:1234", Path("/a b/repo"), content_id.hex())
    assert lines.count("127.0.0.1:1234") == 3
    assert base64.b64encode(content_id).decode() in lines
    assert content_id.hex() in lines
    assert "provgate index '/a b/repo'\n" in lines
