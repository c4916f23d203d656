"""What `provgate config show` says of the configuration in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from provgate_client.cli.main import main
from provgate_runtime.document import Source, SourceKind

SECRET = "hunter2"
CLEAN = dict.fromkeys(("PROVGATE_CONFIG", "SWH_CONFIG_FILENAME", "PROVGATE_AMQP_URL", "PROVGATE_URL", "PROVGATE_TOKEN"))

FILE = """
provenance:
  storage: {cls: grpc, url: "gateway.example:443", tls: true}
  rabbitmq:
    url_file: %(directory)s/amqp
    storage_config:
      cls: postgresql
      db: {host: db.example, dbname: provenance, user: provgate, password_file: %(directory)s/password}
      lock_timeout_s: 3
    ranges: {content: 4}
    preferred: [content.0-3, directory]
  gateway:
    storage_config: {cls: mongodb, db: "mongodb://reader:hunter2@mongo.example/provenance"}
    access:
      certificates: {"producer.example": writer}
      limits: {max_calls: 3}
    tls_client_ca: /etc/ca.pem
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "amqp").write_text(f"amqps://provgate:{SECRET}@broker.example/v\n")
    (tmp_path / "password").write_text(f"{SECRET}\n")
    path = tmp_path / "provgate.yml"
    path.write_text(FILE % {"directory": tmp_path})
    return path


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env={**CLEAN, **(env or {})})


def shown(*arguments: str, env: dict[str, str] | None = None) -> dict[str, tuple[Any, Source]]:
    """Returns value and source of each setting, by its path."""
    result = run(*arguments, "--format", "json", env=env)
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    return {
        each["path"].removeprefix("provenance."): (
            each["value"],
            Source(SourceKind(each["source"]), each["name"], each["named_by"]),
        )
        for each in json.loads(result.output)["settings"]
    }


def test_each_value_has_its_source(config: Path) -> None:
    env = {"PROVGATE_WORKERS_PROCESSES": "7", "PROVGATE_CONFIG": str(config), "PROVGATE_TOKEN": SECRET}
    found = shown("--retry-time-s", "5", "config", "show", env=env)
    of_file = Source(SourceKind.FILE, str(config))
    directory = config.parent
    assert {path: found[path] for path in EXPECTED} == {
        "storage.cls": ("grpc", of_file),
        "storage.url": ("gateway.example:443", of_file),
        "storage.token": ("***", Source(SourceKind.ENVIRONMENT, "PROVGATE_TOKEN")),
        "storage.retry_time_s": (5.0, Source(SourceKind.FLAG, "--retry-time-s")),
        "storage.keepalive_s": (60.0, Source(SourceKind.DEFAULT)),
        "rabbitmq.url": (
            "amqps://***@broker.example/v",
            Source(SourceKind.VALUE_FILE, f"{directory}/amqp", f"url_file in {config}"),
        ),
        "rabbitmq.processes": (7, Source(SourceKind.ENVIRONMENT, "PROVGATE_WORKERS_PROCESSES")),
        "rabbitmq.ranges.content": (4, of_file),
        "rabbitmq.preferred": (["content.0-3", "directory"], of_file),
        "rabbitmq.storage_config.cls": ("postgresql", of_file),
        "rabbitmq.storage_config.db.host": ("db.example", of_file),
        "rabbitmq.storage_config.db.password": (
            "***",
            Source(SourceKind.VALUE_FILE, f"{directory}/password", f"password_file in {config}"),
        ),
        "rabbitmq.storage_config.lock_timeout_s": (3.0, of_file),
        "rabbitmq.storage_config.tcp_timeout_s": (20, Source(SourceKind.DEFAULT)),
        "rabbitmq.storage_config.write_connections": (
            None,
            Source(SourceKind.PROGRAM, "storage_threads of the workers, and 4 more"),
        ),
        "gateway.storage_config.db": ("mongodb://***@mongo.example/provenance", of_file),
        "gateway.access.certificates.producer.example": ("writer", of_file),
        "gateway.access.limits.max_calls": (3, of_file),
        "gateway.access.limits.entries_per_second": (None, Source(SourceKind.DEFAULT)),
    }


EXPECTED = (
    *(f"storage.{name}" for name in ("cls", "url", "token", "retry_time_s", "keepalive_s")),
    *(f"rabbitmq.{name}" for name in ("url", "processes", "ranges.content", "preferred")),
    *(f"rabbitmq.storage_config.{name}" for name in ("cls", "db.host", "db.password", "lock_timeout_s")),
    *(f"rabbitmq.storage_config.{name}" for name in ("tcp_timeout_s", "write_connections")),
    *("gateway.storage_config.db", "gateway.access.certificates.producer.example"),
    *(f"gateway.access.limits.{name}" for name in ("max_calls", "entries_per_second")),
)


def test_a_variable_counts_before_the_file_and_may_name_a_file(config: Path, tmp_path: Path) -> None:
    env = {"PROVGATE_AMQP_URL": f"amqp://u:{SECRET}@other.example/"}
    value, source = shown("config", "show", "--config", str(config), env=env)["rabbitmq.url"]
    assert (value, source) == ("amqp://***@other.example/", Source(SourceKind.ENVIRONMENT, "PROVGATE_AMQP_URL"))
    env = {"PROVGATE_AMQP_URL_FILE": f"{tmp_path}/amqp"}
    _, source = shown("config", "show", env=env)["rabbitmq.url"]
    assert source == Source(SourceKind.VALUE_FILE, f"{tmp_path}/amqp", "PROVGATE_AMQP_URL_FILE")


def test_the_yaml_has_the_values_and_says_where_they_come_from(config: Path) -> None:
    result = run("--config", str(config), "config", "show")
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    document = yaml.safe_load(result.output)["provenance"]
    assert document["storage"]["url"] == "gateway.example:443"
    assert document["rabbitmq"]["storage_config"]["db"]["password"] == "***"
    assert document["gateway"]["access"] == {
        "tokens_file": None,
        "certificates": {"producer.example": "writer"},
        "limits": {"max_calls": 3, "max_unacked_entries": None, "entries_per_second": None},
    }
    assert all("  # " in line for line in result.output.splitlines() if not line.endswith(":"))
    assert f"url: gateway.example:443  # {config}" in result.output


def test_without_anything_all_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A stack of this clone may be up.
    monkeypatch.chdir(tmp_path)
    found = shown("config", "show")
    assert {source for _, source in found.values()} == {Source(SourceKind.DEFAULT)}
    assert found["rabbitmq.storage_config"] == ({}, Source(SourceKind.DEFAULT))


def test_of_a_storage_of_somebody_else_no_value_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provgate_operations.config.effective.settings_of_storage", lambda _cls: None)
    path = tmp_path / "provgate.yml"
    path.write_text(f"provenance: {{rabbitmq: {{storage_config: {{cls: postgresql, db: 'host={SECRET}'}}}}}}")
    found = shown("--config", str(path), "config", "show")
    assert found["rabbitmq.storage_config.db"][0] == "***"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("provenance: {gateway: {batch_size: 0}}", "provenance.gateway.batch_size"),
        ("provenance: {gateway: {acess: {}}}", "provenance.gateway.acess"),
        ("provenance: {rabbitmq: {ranges: {content: 3}}}", "provenance.rabbitmq.ranges.content"),
        ("provenance: {rabbitmq: {url: 'hunter2'}}", "provenance.rabbitmq.url"),
        ("provenance: {rabbitmq: {storage_config: {cls: postgresql}}}", "provenance.rabbitmq.storage_config.db"),
        (
            "provenance: {rabbitmq: {storage_config: {cls: postgresql, db: 'hunter2'}}}",
            "provenance.rabbitmq.storage_config.db",
        ),
        ("provenance: {storage: {cls: rabbitmq, url: 'amqp://u:hunter2@h'}}", "provenance.storage.cls"),
        ("provenance: [hunter2]", "provenance: Expected"),
    ],
)
def test_a_wrong_configuration_is_told_as_ever(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "provgate.yml"
    path.write_text(text)
    result = run("--config", str(path), "config", "show")
    assert result.exit_code == 2
    assert f"Error: {said}" in result.output
    assert SECRET not in result.output


def test_a_wrong_variable_is_told_as_ever() -> None:
    result = run("config", "show", env={"PROVGATE_GATEWAY_BATCH_SIZE": "many"})
    assert result.exit_code == 2
    assert "PROVGATE_GATEWAY_BATCH_SIZE" in result.output


def test_one_value_is_printed_as_it_is(config: Path) -> None:
    assert run("--config", str(config), "config", "get", "provenance.storage.url").output == "gateway.example:443\n"
    hidden = run("config", "get", "--config", str(config), "provenance.rabbitmq.url").output
    assert hidden == "amqps://***@broker.example/v\n"


def test_an_unknown_one_is_refused() -> None:
    result = run("config", "get", "provenance.storage.adress")
    assert result.exit_code == 2
    assert "there is no such setting" in result.output
