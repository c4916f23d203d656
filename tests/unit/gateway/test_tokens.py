"""Tokens, the file that holds their hashes, and the command that makes them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from provgate_gateway.access.roles import Role
from provgate_gateway.access.token_command import token
from provgate_gateway.access.tokens import TokenLine, digest_of, holder_of, new_token, read_token_file
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
    for secret, name in (("a", "ci"), ("b", "web"), ("c", "ci")):
        found = holder_of(secret, lines)
        assert found is not None
        assert found.name == name
    assert holder_of("d", lines) is None
    # The hash itself is no token.
    assert holder_of(digest_of("a"), lines) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SECRET, r"tokens:1: a line is <name> <role> <SHA-256"),
        (f"# one\nci writer {SECRET}", r"tokens:2: a hash is 64 hexadecimal digits"),
        (f"ci {SECRET} {digest_of('a')}", r"tokens:1: a role is one of reader, writer, admin"),
        (f"-{SECRET} reader {digest_of('a')}", r"tokens:1: a name is up to 128"),
        (f"ci reader {digest_of('a')} {SECRET}", r"tokens:1: a line is"),
        (f"ci reader {digest_of('a')}\nci writer {digest_of('b')}", r"tokens: ci has two roles"),
    ],
)
def test_a_wrong_file_is_told_of_by_its_place_and_not_quoted(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as raised:
        read_token_file(tokens_file(tmp_path, text))
    assert SECRET not in raised.value.message


def test_a_file_without_tokens_says_something(tmp_path: Path) -> None:
    assert read_token_file(tokens_file(tmp_path, "# nobody\n")) == []
    with pytest.raises(ConfigurationError, match="is empty"):
        read_token_file(tokens_file(tmp_path, ""))


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


def test_the_command_prints_the_token_once_and_the_line_apart() -> None:
    result = CliRunner().invoke(token, ["ci", "--role", "writer"])
    assert result.exit_code == 0
    assert result.stderr == f"{TokenLine('ci', Role.WRITER, digest_of(result.stdout.strip()))}\n"


@pytest.mark.parametrize("exists", [False, True])
def test_the_command_adds_lines_to_a_file_of_its_users_own(tmp_path: Path, exists: bool) -> None:
    file = tmp_path / "tokens"
    if exists:
        file.touch(mode=0o600)
    made = [_appended(file, "ci", "writer"), _appended(file, "web", "reader")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = read_token_file(str(file))
    assert [(line.name, line.role, line.digest) for line in lines] == [
        ("ci", Role.WRITER, digest_of(made[0])),
        ("web", Role.READER, digest_of(made[1])),
    ]


def test_the_command_begins_a_line_where_the_last_one_has_no_end(tmp_path: Path) -> None:
    file = tokens_file(tmp_path, f"web reader {digest_of('a')}")
    _appended(Path(file), "ci", "writer")
    assert [line.name for line in read_token_file(file)] == ["web", "ci"]


def _appended(file: Path, name: str, role: str) -> str:
    result = CliRunner().invoke(token, [name, "--role", role, "--append", str(file)])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout.strip()


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
def test_the_command_refuses_what_the_file_could_not_have(tmp_path: Path, arguments: list[str], expected: str) -> None:
    before = f"web reader {digest_of('a')}\n"
    file = tokens_file(tmp_path, before)
    result = CliRunner().invoke(token, [argument.format(file=file) for argument in arguments])
    assert result.exit_code in (1, 2)
    assert expected in result.stderr
    assert result.stdout == ""
    assert Path(file).read_text(encoding="utf-8") == before
