"""The configuration file, and the profile of a running stack."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from provgate_runtime import ConfigDocument, ConfigurationError
from provgate_runtime.document import profile_name

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    for variable in ("PROVGATE_CONFIG", "SWH_CONFIG_FILENAME"):
        monkeypatch.delenv(variable, raising=False)

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_sections_are_found(write: Write) -> None:
    document = ConfigDocument.load(
        write(
            "provenance:\n  storage: {cls: grpc, url: 'localhost:50051'}\n  rabbitmq: {batch_size: 100}\n  gateway:\n"
        )
    )
    assert document.section("storage") == {"cls": "grpc", "url": "localhost:50051"}
    assert document.section("rabbitmq") == {"batch_size": 100}
    assert document.section("gateway") == {}
    assert document.warnings == []


@pytest.mark.parametrize("text", ["", "# nothing\n", "provenance:\n", "{}", "provenance: {}"])
def test_an_empty_file_is_an_empty_document(write: Write, text: str) -> None:
    assert ConfigDocument.load(write(text)).section("rabbitmq") == {}


def test_an_archive_section_is_ignored_with_a_warning(write: Write) -> None:
    document = ConfigDocument.load(write("provenance: {archive: {cls: api, token: hunter2}, gateway: {}}"))
    (warning,) = document.warnings
    assert "provenance.archive" in warning
    assert "hunter2" not in warning


def test_without_a_file_there_is_an_empty_document(write: Write) -> None:
    assert ConfigDocument.load().section("gateway") == {}


def test_the_environment_names_the_file(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("provenance: {gateway: {batch_size: 1}}")
    monkeypatch.setenv("SWH_CONFIG_FILENAME", str(old))
    assert ConfigDocument.load().section("gateway") == {"batch_size": 1}
    monkeypatch.setenv("PROVGATE_CONFIG", str(write("provenance: {gateway: {batch_size: 2}}")))
    assert ConfigDocument.load().section("gateway") == {"batch_size": 2}
    flag = tmp_path / "flag.yaml"
    flag.write_text("provenance: {gateway: {batch_size: 3}}")
    assert ConfigDocument.load(flag).section("gateway") == {"batch_size": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provenance: {a: hunter2\n  b: [", "is not YAML: line 2"),
        ("provenance: !!python/object/apply:os.system [hunter2]", "is not YAML: line 1"),
        ("provenance: {gateway: {listen: 2001-13-45}}", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("provenance: \x07", "is not YAML"),
        ("hunter2", "is not a mapping"),
        ("- provenance", "is not a mapping"),
        ("provenence: {}", "provenence: unknown key"),
        ("provenance: {gatway: {}}", "provenance.gatway: unknown key"),
        ("provenance: hunter2", "provenance: Expected `object`, got `str`"),
        ("provenance: 0", "provenance: Expected `object`, got `int`"),
        ("provenance: []", "provenance: Expected `object`, got `list`"),
        ("1: 2", "1: unknown key"),
    ],
)
def test_a_bad_file_is_told_with_its_place_and_without_its_text(write: Write, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ConfigDocument.load(write(text))
    assert expected in caught.value.message
    assert "hunter2" not in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", ["hunter2", "[]", "0", "true"])
def test_a_section_is_a_mapping(write: Write, value: str) -> None:
    document = ConfigDocument.load(write(f"provenance: {{gateway: {value}}}"))
    with pytest.raises(ConfigurationError, match=r"^provenance\.gateway: Expected `object`, got `\w+`$"):
        document.section("gateway")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"provenance: \xe9")
    for path, reason in (tmp_path / "nowhere.yaml", "No such file"), (tmp_path, "Is a dir"), (latin, "it is not UTF-8"):
        with pytest.raises(ConfigurationError, match=f"{path.name}: .* cannot be read: {reason}"):
            ConfigDocument.load(path)


def test_secrets_come_from_files_at_any_depth(write: Write, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("amqp://u:hunter2@host/\n")
    (tmp_path / "password").write_text("  hunter2  \n")
    document = ConfigDocument.load(
        write(
            f"provenance: {{rabbitmq: {{url_file: {tmp_path}/url, storage_config: {{db: {{user: u, password_file: "
            f"{tmp_path}/password}}}}}}}}"
        )
    )
    assert document.section("rabbitmq") == {
        "url": "amqp://u:hunter2@host/",
        "storage_config": {"db": {"user": "u", "password": "  hunter2  "}},
    }


def test_a_key_that_only_looks_like_a_secret_stays(write: Write) -> None:
    document = ConfigDocument.load(write("provenance: {gateway: {listen_file: nowhere}}"))
    assert document.section("gateway") == {"listen_file": "nowhere"}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{url_file: /nowhere}", "provenance.rabbitmq.url_file: the file /nowhere cannot be read"),
        ("{url_file: 5}", "provenance.rabbitmq.url_file: Expected `str`, got `int`"),
        ("{url: hunter2, url_file: /x}", "provenance.rabbitmq.url_file: give it or provenance.rabbitmq.url, not both"),
        (
            "{storage_config: {db: {password_file: /nowhere}}}",
            "provenance.rabbitmq.storage_config.db.password_file: the file /nowhere cannot be read",
        ),
    ],
)
def test_the_file_of_a_secret_that_cannot_be_read(write: Write, section: str, expected: str) -> None:
    document = ConfigDocument.load(write(f"provenance: {{rabbitmq: {section}}}"))
    with pytest.raises(ConfigurationError) as caught:
        document.section("rabbitmq")
    assert caught.value.message == expected


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


def assert_is_not_used(reason: str) -> None:
    document = ConfigDocument.load(profile=True)
    assert document.section("storage") == {}
    (warning,) = document.warnings
    assert reason in warning


@pytest.mark.usefixtures("clone")
def test_a_profile_is_found_from_below_the_clone() -> None:
    assert url() == "127.0.0.1:4711"


@pytest.mark.usefixtures("clone")
def test_gateway_and_workers_do_not_look_for_a_profile() -> None:
    assert url(profile=False) is None


def test_outside_the_clone_no_profile_is_found(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone.parent)
    assert url() is None


def test_a_named_file_is_read_instead_of_the_profile(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = clone / "named.yml"
    named.write_text("provenance: {storage: {cls: grpc}}", encoding="utf-8")
    assert ConfigDocument.load(named, profile=True).section("storage") == {"cls": "grpc"}
    monkeypatch.setenv("PROVGATE_CONFIG", str(named))
    assert url() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("given_away", [".stack", ".stack/up", f".stack/up/{profile_name()}"])
def test_a_profile_of_somebody_else_is_not_used(clone: Path, given_away: str) -> None:
    os.chown(clone / given_away, 12345, 12345)
    assert_is_not_used("belongs to somebody else")


@pytest.mark.parametrize(("opened", "mode"), [(f".stack/up/{profile_name()}", 0o620), (".stack/up", 0o770)])
def test_a_profile_that_others_may_write_is_not_used(clone: Path, opened: str, mode: int) -> None:
    (clone / opened).chmod(mode)
    assert_is_not_used("others may read or change it")


def test_a_profile_behind_a_link_is_not_used(clone: Path) -> None:
    (clone / ".stack").rename(clone / "elsewhere")
    (clone / ".stack").symlink_to(clone / "elsewhere")
    assert_is_not_used("belongs to somebody else")


def test_a_profile_that_came_with_a_repository_is_not_found(clone: Path) -> None:
    # Whoever made the repository does not know the boot id of this machine.
    profile = clone / ".stack" / "up" / profile_name()
    profile.rename(profile.with_name("profile-0b87fd7b-0000-4e59-8014-44d55f188701.yml"))
    assert url() is None


def test_in_a_removed_directory_no_profile_is_found(clone: Path) -> None:
    shutil.rmtree(clone)
    assert url() is None
