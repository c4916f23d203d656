"""Servers: found, installed, or existing ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provgate_stack.errors import MissingProgramError
from provgate_stack.servers import installed, packages
from provgate_stack.servers.selection import ExistingMongoDb


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which no server, apt-get or sudo is found."""
    monkeypatch.setattr(installed, "_RABBITMQ_PLACES", ())
    monkeypatch.setattr(installed, "_POSTGRESQL_PLACES", ())
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PROVGATE_AMQP_URL", raising=False)
    monkeypatch.delenv("PROVGATE_POSTGRES_DSN", raising=False)


@pytest.mark.usefixtures("nothing_installed")
def test_missing_program_is_named() -> None:
    with pytest.raises(MissingProgramError, match="rabbitmq-server"):
        installed.rabbitmq_programs()
    with pytest.raises(MissingProgramError, match="postgresql"):
        installed.postgresql_programs()
    with pytest.raises(MissingProgramError, match=r"SecantusDB is not installed .*make venv"):
        installed.mongodb_program()
    with pytest.raises(MissingProgramError, match=r"promtool .*package prometheus.* is not installed: run `make test`"):
        installed.promtool_program()


@pytest.mark.usefixtures("nothing_installed")
def test_without_apt_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingProgramError, match=r"rabbitmq-server and postgresql .*PROVGATE_AMQP_URL"):
        packages.install_missing_servers("postgresql")
    # MongoDB's server is no package.
    with pytest.raises(MissingProgramError, match=r"^rabbitmq-server must"):
        packages.install_missing_servers("mongodb")
    with pytest.raises(MissingProgramError, match=r"^rabbitmq-server and postgresql and prometheus must"):
        packages.install_what_tests_need()
    monkeypatch.setenv("PROVGATE_AMQP_URL", "amqp://127.0.0.1")
    monkeypatch.setenv("PROVGATE_POSTGRES_DSN", "postgresql://127.0.0.1/d")
    # Existing servers need no package; Prometheus is for tests alone.
    packages.install_missing_servers("postgresql")
    with pytest.raises(MissingProgramError, match=r"^prometheus must"):
        packages.install_what_tests_need()


@pytest.mark.usefixtures("nothing_installed")
def test_without_root_and_sudo_the_message_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "apt-get").touch(mode=0o755)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(MissingProgramError, match="`apt-get install rabbitmq-server postgresql` as root"):
        packages.install_missing_servers("postgresql")


def test_policy_forbids_only_the_servers_services(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text(packages._POLICY_TEXT, encoding="utf-8")
    policy.chmod(0o755)
    for service in ("rabbitmq-server", "postgresql", "postgresql@15-main", "prometheus", "cron"):
        assert subprocess.run([str(policy), service, "start"], check=False).returncode == 101
    assert subprocess.run([str(policy), "ssh", "start"], check=False).returncode == 0


def test_newest_version_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("9.6", "15", "2"):
        directory = tmp_path / "postgresql" / version / "bin"
        directory.mkdir(parents=True)
        for program in ("postgres", "initdb"):
            (directory / program).touch()
    place = str(tmp_path.relative_to("/") / "postgresql" / "*" / "bin")
    monkeypatch.setattr(installed, "_POSTGRESQL_PLACES", (place,))
    assert installed.postgresql_programs() == tmp_path / "postgresql" / "15" / "bin"


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("mongodb://h", "mongodb://h/t"),
        ("mongodb://h:1,g:2/d?replicaSet=r", "mongodb://h:1,g:2/t?replicaSet=r"),
        ("mongodb://u:p%40@h/d", "mongodb://u:p%40@h/t?authSource=d"),
        ("mongodb://u:p@h/d?tls=true", "mongodb://u:p@h/t?tls=true&authSource=d"),
        ("mongodb://u:p@h/d?AuthSource=admin", "mongodb://u:p@h/t?AuthSource=admin"),
        ("mongodb://u:p@h/", "mongodb://u:p@h/t"),
    ],
)
def test_a_database_beside_the_given_one_has_the_same_users(url: str, made: str) -> None:
    assert ExistingMongoDb(url).create_database("t") == made


def test_an_existing_server_is_used_as_its_url_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVGATE_MONGODB_URL", "mongodb://h/d")
    server = ExistingMongoDb.of_environment()
    assert server is not None
    assert server.storage_config() == {"cls": "mongodb", "db": "mongodb://h/d"}
    monkeypatch.delenv("PROVGATE_MONGODB_URL")
    assert ExistingMongoDb.of_environment() is None
