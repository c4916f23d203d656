from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provgate_stack.errors import MissingProgramError
from provgate_stack.servers import installed, packages


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
def test_missing_server_is_named() -> None:
    with pytest.raises(MissingProgramError, match="rabbitmq-server"):
        installed.rabbitmq_programs()
    with pytest.raises(MissingProgramError, match="postgresql"):
        installed.postgresql_programs()
    with pytest.raises(MissingProgramError, match=r"SecantusDB is not installed .*make venv"):
        installed.mongodb_program()
    with pytest.raises(MissingProgramError, match=r"promtool .*package prometheus.* is not installed: run `make test`"):
        installed.promtool_program()


@pytest.mark.usefixtures("nothing_installed")
def test_without_apt_it_is_said_what_to_install() -> None:
    with pytest.raises(MissingProgramError, match=r"rabbitmq-server and postgresql .*PROVGATE_AMQP_URL"):
        packages.install_missing_servers("postgresql")


@pytest.mark.usefixtures("nothing_installed")
def test_existing_servers_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVGATE_AMQP_URL", "amqp://127.0.0.1")
    monkeypatch.setenv("PROVGATE_POSTGRES_DSN", "postgresql://127.0.0.1/d")
    packages.install_missing_servers("postgresql")


@pytest.mark.usefixtures("nothing_installed")
def test_mongodb_needs_no_package() -> None:
    with pytest.raises(MissingProgramError, match=r"^rabbitmq-server must"):
        packages.install_missing_servers("mongodb")


@pytest.mark.usefixtures("nothing_installed")
def test_prometheus_is_for_tests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingProgramError, match=r"^rabbitmq-server and postgresql and prometheus must"):
        packages.install_what_tests_need()
    monkeypatch.setenv("PROVGATE_AMQP_URL", "amqp://127.0.0.1")
    monkeypatch.setenv("PROVGATE_POSTGRES_DSN", "postgresql://127.0.0.1/d")
    with pytest.raises(MissingProgramError, match=r"^prometheus must"):
        packages.install_what_tests_need()


@pytest.mark.usefixtures("nothing_installed")
def test_without_root_and_sudo_it_is_said_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "apt-get").touch(mode=0o755)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(MissingProgramError, match="`apt-get install rabbitmq-server postgresql` as root"):
        packages.install_missing_servers("postgresql")


@pytest.mark.parametrize(
    ("service", "code"),
    [
        ("rabbitmq-server", 101),
        ("postgresql", 101),
        ("postgresql@15-main", 101),
        ("prometheus", 101),
        ("cron", 101),
        ("ssh", 0),
    ],
)
def test_policy_forbids_the_servers_alone(tmp_path: Path, service: str, code: int) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text(packages._POLICY_TEXT, encoding="utf-8")
    policy.chmod(0o755)
    assert subprocess.run([str(policy), service, "start"], check=False).returncode == code


def test_newest_version_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("9.6", "15", "2"):
        directory = tmp_path / "postgresql" / version / "bin"
        directory.mkdir(parents=True)
        for program in ("postgres", "initdb"):
            (directory / program).touch()
    place = str(tmp_path.relative_to("/") / "postgresql" / "*" / "bin")
    monkeypatch.setattr(installed, "_POSTGRESQL_PLACES", (place,))
    assert installed.postgresql_programs() == tmp_path / "postgresql" / "15" / "bin"
