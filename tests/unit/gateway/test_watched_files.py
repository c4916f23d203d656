"""Files that are read again when they change."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from provgate_gateway.access.tokens import WatchedFiles
from provgate_runtime import ConfigurationError


class Reader:
    """Reads a file that must not say "wrong", and counts how often."""

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


def test_files_are_read_when_they_change_and_only_then(tmp_path: Path) -> None:
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


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    watched = WatchedFiles([str(file)], Reader(file))
    replacement = tmp_path / "new"
    replacement.write_text("two")
    os.utime(replacement, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    replacement.replace(file)
    assert watched.current() == "two"


def test_one_that_is_wrong_or_gone_is_logged_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
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


def test_at_the_start_a_wrong_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it is gone"):
        WatchedFiles([str(tmp_path / "none")], Reader(tmp_path / "none"))
