"""Tokens, their file, the command that makes them, and files that are read again when they change."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from provgate_gateway.access.roles import Role
from provgate_gateway.access.token_command import token
from provgate_gateway.access.tokens import TokenLine, digest_of, holder_of, new_token, read_token_file
from provgate_gateway.access.watched_files import WatchedFiles
from provgate_runtime import ConfigurationError

SECRET = "hunter2"


def tokens_file(path: Path, text: str) -> str:
    file = path / "tokens"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_file_has_lines_and_comments(tmp_path: Path) -> None:
    text = f"# who\n\nci writer {digest_of('a')}\n  web reader\t{digest_of('b').upper()}  \nci writer {digest_of('c')}"
    lines = read_token_file(tokens_file(tmp_path, text))
    assert [(line.name, line.role) for line in lines] == [
        ("ci", Role.WRITER),
        ("web", Role.READER),
        ("ci", Role.WRITER),
    ]
    # The hash itself is no token.
    found = [holder_of(shown, lines) for shown in ("a", "b", "c", "d", digest_of("a"))]
    assert [line and line.name for line in found] == ["ci", "web", "ci", None, None]
    assert read_token_file(tokens_file(tmp_path, "# nobody\n")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SECRET, r"tokens:1: a line is <name> <role> <SHA-256"),
        (f"# one\nci writer {SECRET}", r"tokens:2: a hash is 64 hexadecimal digits"),
        (f"ci {SECRET} {digest_of('a')}", r"tokens:1: a role is one of reader, writer, admin"),
        (f"-{SECRET} reader {digest_of('a')}", r"tokens:1: a name is up to 128"),
        (f"ci reader {digest_of('a')} {SECRET}", r"tokens:1: a line is"),
        (f"ci reader {digest_of('a')}\nci writer {digest_of('b')}", r"tokens: ci has two roles"),
        ("", "is empty"),
    ],
)
def test_the_error_of_a_wrong_file_has_the_place_and_no_quote(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as raised:
        read_token_file(tokens_file(tmp_path, text))
    assert SECRET not in raised.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_token_file(str(tmp_path / "none"))
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        read_token_file(str(tmp_path / "latin"))


def test_tokens_differ_and_can_be_sent() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(each) == 43 and each.isascii() and not set(each) & set(" \t\n") for each in made)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(token, arguments)


def appended(file: Path, name: str, role: str) -> str:
    result = run(name, "--role", role, "--append", str(file))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout.strip()


def test_the_command_prints_token_and_line_separately() -> None:
    result = run("ci", "--role", "writer")
    assert result.exit_code == 0
    assert result.stderr == f"{TokenLine('ci', Role.WRITER, digest_of(result.stdout.strip()))}\n"


@pytest.mark.parametrize("exists", [False, True])
def test_the_command_appends_to_a_private_file(tmp_path: Path, exists: bool) -> None:
    file = tmp_path / "tokens"
    if exists:
        file.touch(mode=0o600)
    made = [appended(file, "ci", "writer"), appended(file, "web", "reader")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [(line.name, line.role, line.digest) for line in read_token_file(str(file))] == [
        ("ci", Role.WRITER, digest_of(made[0])),
        ("web", Role.READER, digest_of(made[1])),
    ]


def test_the_command_starts_a_new_line_if_the_last_one_has_no_end(tmp_path: Path) -> None:
    file = tokens_file(tmp_path, f"web reader {digest_of('a')}")
    appended(Path(file), "ci", "writer")
    assert [line.name for line in read_token_file(file)] == ["web", "ci"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["two words", "--role", "reader"], "NAME is up to 128"),
        (["ci"], "--role"),
        (["ci", "--role", "owner"], "owner"),
        (["web", "--role", "writer", "--append", "{file}"], "web is there with another role"),
        (["web", "--role", "reader", "--append", "/nowhere/tokens"], "cannot be written: No such file"),
    ],
)
def test_the_command_refuses_invalid_lines(tmp_path: Path, arguments: list[str], expected: str) -> None:
    before = f"web reader {digest_of('a')}\n"
    file = tokens_file(tmp_path, before)
    result = run(*[argument.format(file=file) for argument in arguments])
    assert result.exit_code in (1, 2)
    assert expected in result.stderr
    assert result.stdout == ""
    assert Path(file).read_text(encoding="utf-8") == before


class Reader:
    """Reads a file that must not contain "wrong", and counts the reads."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        try:
            text = self.file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError("it is gone") from error
        if "wrong" in text:
            raise ConfigurationError("it is wrong")
        return text


def test_watched_files_are_read_when_they_change_and_only_then(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("one")
    reader = Reader(file)
    watched = WatchedFiles([str(file), str(other)], reader)
    first = watched.current()
    assert watched.current() is first
    assert reader.count == 1
    file.write_text("twos")
    assert [watched.current() for _ in range(3)] == ["twos"] * 3
    assert reader.count == 2
    other.write_text("")
    watched.current()
    assert reader.count == 3


def test_a_replacement_of_the_same_size_and_time_is_a_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    watched = WatchedFiles([str(file)], Reader(file))
    replacement = tmp_path / "new"
    replacement.write_text("two")
    os.utime(replacement, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    replacement.replace(file)
    assert watched.current() == "two"


def test_a_wrong_or_missing_file_is_logged_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    with pytest.raises(ConfigurationError, match="it is gone"):
        WatchedFiles([str(file)], Reader(file))
    file.write_text("one")
    watched = WatchedFiles([str(file)], Reader(file))
    caplog.set_level(logging.ERROR)
    file.write_text("wrong")
    assert [watched.current() for _ in range(3)] == ["one"] * 3
    file.unlink()
    assert [watched.current() for _ in range(3)] == ["one"] * 3
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == ["it is wrong", "it is gone"]
    file.write_text("again")
    assert watched.current() == "again"
    assert len(caplog.records) == 2
