"""`provgate config`: the settings in force with their sources, hidden secrets, and the sample."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from provgate_client.cli.main import main
from provgate_operations.config.effective import SECTIONS, Section
from provgate_operations.config.sample import sample
from provgate_runtime import Settings, convert
from provgate_runtime.document import Source, SourceKind
from provgate_storage.mongodb import MongoDbSettings
from provgate_storage.postgresql import PostgreSqlSettings
from provgate_storage.registry import local_storage

SAMPLE_FILE = Path(__file__).resolve().parents[3] / "docs" / "provgate.sample.yml"

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
            "***",
            Source(SourceKind.VALUE_FILE, f"{directory}/amqp", f"url_file in {config}"),
        ),
        "rabbitmq.processes": (7, Source(SourceKind.ENVIRONMENT, "PROVGATE_WORKERS_PROCESSES")),
        "rabbitmq.ranges.content": (4, of_file),
        "rabbitmq.preferred": (["content.0-3", "directory"], of_file),
        "rabbitmq.storage_config.cls": ("postgresql", of_file),
        "rabbitmq.storage_config.db": ("***", of_file),
        "rabbitmq.storage_config.lock_timeout_s": (3.0, of_file),
        "rabbitmq.storage_config.tcp_timeout_s": (20, Source(SourceKind.DEFAULT)),
        "rabbitmq.storage_config.write_connections": (
            None,
            Source(SourceKind.PROGRAM, "storage_threads of the workers, and 4 more"),
        ),
        "gateway.storage_config.db": ("***", of_file),
        "gateway.access.certificates.producer.example": ("writer", of_file),
        "gateway.access.limits.max_calls": (3, of_file),
        "gateway.access.limits.entries_per_second": (None, Source(SourceKind.DEFAULT)),
    }


EXPECTED = (
    *(f"storage.{name}" for name in ("cls", "url", "token", "retry_time_s", "keepalive_s")),
    *(f"rabbitmq.{name}" for name in ("url", "processes", "ranges.content", "preferred")),
    *(f"rabbitmq.storage_config.{name}" for name in ("cls", "db", "lock_timeout_s")),
    *(f"rabbitmq.storage_config.{name}" for name in ("tcp_timeout_s", "write_connections")),
    *("gateway.storage_config.db", "gateway.access.certificates.producer.example"),
    *(f"gateway.access.limits.{name}" for name in ("max_calls", "entries_per_second")),
)


def test_a_variable_counts_before_the_file_and_may_name_a_file(config: Path, tmp_path: Path) -> None:
    env = {"PROVGATE_AMQP_URL": f"amqp://u:{SECRET}@other.example/"}
    value, source = shown("config", "show", "--config", str(config), env=env)["rabbitmq.url"]
    assert (value, source) == ("***", Source(SourceKind.ENVIRONMENT, "PROVGATE_AMQP_URL"))
    env = {"PROVGATE_AMQP_URL_FILE": f"{tmp_path}/amqp"}
    _, source = shown("config", "show", env=env)["rabbitmq.url"]
    assert source == Source(SourceKind.VALUE_FILE, f"{tmp_path}/amqp", "PROVGATE_AMQP_URL_FILE")


def test_the_yaml_has_values_and_sources(config: Path) -> None:
    result = run("--config", str(config), "config", "show")
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    document = yaml.safe_load(result.output)["provenance"]
    assert document["storage"]["url"] == "gateway.example:443"
    assert document["rabbitmq"]["storage_config"]["db"] == "***"
    assert document["gateway"]["access"] == {
        "tokens_file": None,
        "certificates": {"producer.example": "writer"},
        "limits": {"max_calls": 3, "max_unacked_entries": None, "entries_per_second": None},
    }
    assert all("  # " in line for line in result.output.splitlines() if not line.endswith(":"))
    assert f"url: gateway.example:443  # {config}" in result.output


def test_without_a_file_all_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A stack of this clone may be up.
    monkeypatch.chdir(tmp_path)
    found = shown("config", "show")
    assert {source for _, source in found.values()} == {Source(SourceKind.DEFAULT)}
    assert found["rabbitmq.storage_config"] == ({}, Source(SourceKind.DEFAULT))


def test_no_value_of_a_storage_of_another_distribution_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_wrong_configuration_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "provgate.yml"
    path.write_text(text)
    result = run("--config", str(path), "config", "show")
    assert result.exit_code == 2
    assert f"Error: {said}" in result.output
    assert SECRET not in result.output


def test_a_wrong_variable_is_an_error() -> None:
    result = run("config", "show", env={"PROVGATE_GATEWAY_BATCH_SIZE": "many"})
    assert result.exit_code == 2
    assert "PROVGATE_GATEWAY_BATCH_SIZE" in result.output


def test_one_value_is_printed(config: Path) -> None:
    assert run("--config", str(config), "config", "get", "provenance.storage.url").output == "gateway.example:443\n"
    hidden = run("config", "get", "--config", str(config), "provenance.rabbitmq.url").output
    assert hidden == "'***'\n"


def test_an_unknown_setting_is_refused() -> None:
    result = run("config", "get", "provenance.storage.adress")
    assert result.exit_code == 2
    assert "there is no such setting" in result.output


def test_every_setting_that_may_hold_a_secret_is_hidden_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "provgate.yml"
    path.write_text(
        """
provenance:
  storage: {token: "hunter2", url: "grpcs://gateway.example:443"}
  rabbitmq:
    url: "amqp://u:hunter2@broker.example/v"
    storage_config: {cls: postgresql, db: "host=h password='hunter2'"}
  gateway:
    storage_config: {cls: mongodb, db: {host: "mongodb://u:hunter2@h/d"}}
    statsd: "127.0.0.1:8125"
"""
    )
    found = {name: value for name, (value, _) in shown("--config", str(path), "config", "show").items()}
    assert {name for name, value in found.items() if value == "***"} == {
        *("storage.token", "rabbitmq.url", "rabbitmq.storage_config.db", "gateway.storage_config.db"),
    }
    # A gateway's address cannot hold a user.
    assert found["storage.url"] == "grpcs://gateway.example:443"


def test_no_setting_is_hidden_but_those_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all.yml").write_text(uncommented(sample(), "#"))
    found = shown("--config", "all.yml", "config", "show")
    hidden = {name for name, (value, _) in found.items() if value == "***"}
    assert hidden == {"rabbitmq.url", "rabbitmq.storage_config.db"}


def uncommented(text: str, mark: str) -> str:
    """Returns the sample with the keys set that have a mark before them."""
    return re.sub(rf"^( *){mark}(?=[a-z])", r"\1", text, flags=re.MULTILINE)


def keys_of(settings: type[Settings]) -> Iterator[str]:
    for field in msgspec.structs.fields(settings):
        yield field.encode_name
        if isinstance(field.type, type) and issubclass(field.type, Settings):
            yield from keys_of(field.type)


def all_set() -> dict[str, Any]:
    sections: dict[str, Any] = yaml.safe_load(uncommented(sample(), "#"))["provenance"]
    return sections


def test_the_sample_in_docs_is_current() -> None:
    assert SAMPLE_FILE.read_text(encoding="utf-8") == sample(), (
        "run `provgate config sample > docs/provgate.sample.yml`"
    )


def test_the_command_prints_the_sample() -> None:
    result = CliRunner().invoke(main, ["config", "sample"])
    assert result.exit_code == 0
    assert result.output == sample()


def test_the_sample_sets_nothing() -> None:
    assert yaml.safe_load(sample()) == {"provenance": dict.fromkeys(("storage", "rabbitmq", "gateway"))}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_with_all_keys_set_a_section_loads(section: Section) -> None:
    values = all_set()[section.name]
    values.pop("cls", None)
    assert set(values) == {field.encode_name for field in msgspec.structs.fields(section.settings)}
    convert(values, section.settings, section.path)


def test_with_all_keys_set_the_storages_load() -> None:
    postgresql = all_set()["rabbitmq"]["storage_config"]
    assert set(postgresql) == {"cls", *keys_of(PostgreSqlSettings)}
    local_storage(postgresql, "provenance.rabbitmq")
    lines = [line for line in sample().splitlines() if re.match(" *##[a-z]", line)]
    mongodb = yaml.safe_load(uncommented("\n".join(lines), "##"))["storage_config"]
    assert set(mongodb) == {"cls", *keys_of(MongoDbSettings)}
    local_storage(mongodb, "provenance.rabbitmq")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_with_all_keys_set_nothing_but_null_differs_from_the_defaults(section: Section) -> None:
    values = all_set()[section.name]
    values.pop("cls", None)
    values.pop("storage_config", None)
    assert convert(values, section.settings, section.path) == section.settings()


@pytest.mark.parametrize("settings", [*(section.settings for section in SECTIONS)], ids=lambda each: each.__name__)
def test_every_key_is_there_with_an_explanation(settings: type[Settings]) -> None:
    lines = [line.strip() for line in sample().splitlines()]
    for key in keys_of(settings):
        places = [index for index, line in enumerate(lines) if line.startswith(f"#{key}:")]
        assert places, key
        assert all(lines[index - 1].startswith("# ") for index in places), key
