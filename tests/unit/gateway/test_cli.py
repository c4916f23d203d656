"""The command line of the gateway: what ends it before it asks any server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from provgate_gateway.cli import main

RABBITMQ = {"url": "amqp://u:hunter2@127.0.0.1:1/", "storage_config": {"cls": "postgresql", "db": "host=/nowhere"}}


def run(path: Path, provenance: Any, *arguments: str, **environment: str) -> Result:
    config = path / "config.yaml"
    config.write_text(yaml.safe_dump({"provenance": provenance}))
    cleared: dict[str, str | None] = {"PROVGATE_CONFIG": None, "SWH_CONFIG_FILENAME": None, "PROVGATE_AMQP_URL": None}
    return CliRunner().invoke(main, ["--config", str(config), *arguments], env={**cleared, **environment})


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({"gatway": {}}, "provenance.gatway: unknown key"),
        ({"gateway": {"batchsize": 1}}, "provenance.gateway.batchsize: "),
        ({"gateway": {"batch_size": "1"}}, "provenance.gateway.batch_size: Expected `int`, got `str`"),
        ({"gateway": {"batch_size": 0}}, "provenance.gateway.batch_size: "),
        ({"gateway": {"listen": 50051}}, "provenance.gateway.listen: Expected `str`, got `int`"),
        ({"gateway": {"listen": "localhost"}}, "provenance.gateway.listen: "),
        ({"rabbitmq": {"heartbeat": "hunter2"}}, "provenance.rabbitmq.heartbeat: Expected `int`, got `str`"),
        *(
            ({"rabbitmq": {**RABBITMQ, "url": url}}, "provenance.rabbitmq.url: not a broker's URL")
            for url in ("hunter2", "http://hunter2@h/", "amqp://", "amqp://u:hunter2@h:port/", "amqp://u:hunter2@:5/")
        ),
        ({"rabbitmq": {**RABBITMQ, "ranges": {"content": 3}}}, "provenance.rabbitmq.ranges.content: a range count"),
        ({"rabbitmq": {**RABBITMQ, "ranges": {"contents": 4}}}, "provenance.rabbitmq.ranges.contents: there is no"),
        ({"rabbitmq": {**RABBITMQ, "storage_config": {}}}, "provenance.rabbitmq.storage_config.cls: "),
        (
            {"rabbitmq": {**RABBITMQ, "storage_config": {"cls": "postgres", "db": "hunter2"}}},
            "provenance.rabbitmq.storage_config.cls: no storage is called 'postgres'",
        ),
        (
            {"rabbitmq": {**RABBITMQ, "storage_config": {"cls": "postgresql", "dsn": "hunter2"}}},
            "provenance.rabbitmq.storage_config.",
        ),
        (
            {"rabbitmq": {**RABBITMQ, "storage_config": {"cls": "postgresql", "db": "password hunter2"}}},
            "provenance.rabbitmq.storage_config.db: ",
        ),
        (
            {"rabbitmq": RABBITMQ, "gateway": {"storage_config": {"cls": "postgresql", "db": 5}}},
            "provenance.gateway.storage_config.db: ",
        ),
        ({"rabbitmq": RABBITMQ, "gateway": {"listen": "0.0.0.0:1"}}, "provenance.gateway.listen: 0.0.0.0:1 can be"),
        *(
            ({"rabbitmq": RABBITMQ, "gateway": {"access": access}}, f"provenance.gateway.access{expected}")
            for access, expected in (
                (
                    {"tokens_file": "/nowhere/tokens"},
                    ".tokens_file: /nowhere/tokens: the file of tokens cannot be read",
                ),
                ({"tokens_file": "/dev/null"}, ".tokens_file: /dev/null: the file of tokens is empty"),
                ({"certificates": {"a.example": "reader"}}, ".certificates: they need tls_client_ca"),
                ({"certificates": {"a.example": "owner"}}, ".certificates"),
                ({"limits": {"max_calls": 0}}, ".limits.max_calls: "),
                ({"limits": {"max_calls": 5}}, ": limits: they are for each principal, and need"),
                ({"tokens": "hunter2"}, ".tokens: "),
            )
        ),
    ],
)
def test_a_bad_configuration_ends_with_2_and_names_the_key(tmp_path: Path, provenance: Any, expected: str) -> None:
    result = run(tmp_path, provenance)
    assert result.exit_code == 2, result.output
    assert f"Error: {expected}" in result.output
    assert "hunter2" not in result.output


def test_a_missing_file_ends_with_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml: the configuration file cannot be read" in result.output


def test_a_flag_overrules_a_variable_overrules_the_file(tmp_path: Path) -> None:
    provenance = {"rabbitmq": RABBITMQ, "gateway": {"listen": "0.0.0.0:1"}}
    assert "0.0.0.0:1 " in run(tmp_path, provenance).output
    variable = {"PROVGATE_GATEWAY_LISTEN": "0.0.0.0:2"}
    assert "0.0.0.0:2 " in run(tmp_path, provenance, **variable).output
    assert "0.0.0.0:3 " in run(tmp_path, provenance, "--listen", "0.0.0.0:3", **variable).output


def test_help_is_enough_to_use_it() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in ("--config", "--listen", "--insecure", "--tls-certificate", "--amqp-url", "--batch-size", "--grace"):
        assert name in result.output
