"""The profile that a stack leaves in its clone: who finds it, and when it does not count."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from provgate_runtime import ConfigDocument
from provgate_runtime.document import profile_name


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone in which a stack is up; the working directory is in it."""
    for variable in ("PROVGATE_CONFIG", "SWH_CONFIG_FILENAME"):
        monkeypatch.delenv(variable, raising=False)
    clone = tmp_path / "clone"
    (clone / ".stack").mkdir(parents=True)
    (clone / ".stack" / "up").mkdir(mode=0o700)
    profile = clone / ".stack" / "up" / profile_name()
    profile.touch(mode=0o600)
    profile.write_text("provenance: {storage: {cls: grpc, url: '127.0.0.1:4711'}}", encoding="utf-8")
    (clone / "docs").mkdir()
    monkeypatch.chdir(clone / "docs")
    return clone


def url(*, profile: bool = True) -> str | None:
    return ConfigDocument.load(profile=profile).section("storage").get("url")


def assert_is_not_used(said: str) -> None:
    document = ConfigDocument.load(profile=True)
    assert document.section("storage") == {}
    (warning,) = document.warnings
    assert said in warning


@pytest.mark.usefixtures("clone")
def test_it_is_found_from_below() -> None:
    assert url() == "127.0.0.1:4711"


@pytest.mark.usefixtures("clone")
def test_gateway_and_workers_do_not_look_for_it() -> None:
    assert url(profile=False) is None


def test_outside_the_clone_it_is_not_found(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone.parent)
    assert url() is None


def test_any_file_that_is_named_counts_instead(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = clone / "named.yml"
    named.write_text("provenance: {storage: {cls: grpc}}", encoding="utf-8")
    assert ConfigDocument.load(named, profile=True).section("storage") == {"cls": "grpc"}
    monkeypatch.setenv("PROVGATE_CONFIG", str(named))
    assert url() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("given_away", [".stack", ".stack/up", f".stack/up/{profile_name()}"])
def test_one_of_somebody_else_is_not_used(clone: Path, given_away: str) -> None:
    os.chown(clone / given_away, 12345, 12345)
    assert_is_not_used("belongs to somebody else")


def test_one_that_others_may_write_is_not_used(clone: Path) -> None:
    (clone / ".stack" / "up" / profile_name()).chmod(0o620)
    assert_is_not_used("others may read or change it")


def test_one_in_a_directory_that_others_may_write_is_not_used(clone: Path) -> None:
    (clone / ".stack" / "up").chmod(0o770)
    assert_is_not_used("others may read or change it")


def test_one_behind_a_link_is_not_used(clone: Path) -> None:
    (clone / ".stack").rename(clone / "elsewhere")
    (clone / ".stack").symlink_to(clone / "elsewhere")
    assert_is_not_used("belongs to somebody else")


def test_one_that_came_with_a_repository_is_not_found(clone: Path) -> None:
    # Whoever made the repository does not know the boot id of this machine.
    profile = clone / ".stack" / "up" / profile_name()
    profile.rename(profile.with_name("profile-0b87fd7b-0000-4e59-8014-44d55f188701.yml"))
    assert url() is None


def test_in_a_directory_that_was_removed_there_is_none(clone: Path) -> None:
    shutil.rmtree(clone)
    assert url() is None
