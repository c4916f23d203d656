"""Flags over environment variables over the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner, Result
from msgspec import Meta, field

from provgate_runtime import Settings, load_section, setting_options

Case = tuple[dict[str, Any], dict[str, str], list[str]]


class ServerSettings(Settings, frozen=True):
    url: Annotated[str, Meta(description="The server.", extra={"env": "TEST_SERVER_URL", "flag": "server-url"})] = (
        "none"
    )
    batch_size: Annotated[int, Meta(ge=1, description="How many.")] = 10
    wait_s: Annotated[float, Meta(description="How long.")] = field(default=1.5, name="wait")
    insecure: Annotated[bool, Meta(description="Plain text.")] = False
    certificate: Annotated[str | None, Meta(description="A file.")] = None
    mode: Annotated[Literal["own", "existing"], Meta(description="Whose.")] = "own"
    hidden: Annotated[int, Meta(description="Not a flag.", extra={"option": False})] = 1
    mapping: dict[str, int] = field(default_factory=dict)


class OtherSettings(Settings, frozen=True):
    batch_size: Annotated[int, Meta(description="Another one.", extra={"flag": "other-batch-size"})] = 20


def run(section: dict[str, Any], environment: dict[str, str], arguments: list[str]) -> tuple[Result, list[Any]]:
    loaded: list[Any] = []

    @click.command()
    @setting_options(ServerSettings, "TEST")
    @setting_options(OtherSettings, "OTHER")
    @click.pass_context
    def command(context: click.Context, /, **_: Any) -> None:
        loaded.append(load_section(context, ServerSettings, section, "provenance.server"))
        loaded.append(load_section(context, OtherSettings, {}, "provenance.other"))

    return CliRunner().invoke(command, arguments, env=environment), loaded


@pytest.mark.parametrize(
    ("case", "batch_size"),
    [
        (({}, {}, []), 10),
        (({"batch_size": 1}, {}, []), 1),
        (({"batch_size": 1}, {"TEST_BATCH_SIZE": "2"}, []), 2),
        (({"batch_size": 1}, {"TEST_BATCH_SIZE": "2"}, ["--batch-size", "3"]), 3),
        (({}, {"TEST_BATCH_SIZE": "2"}, ["--batch-size", "10"]), 10),
        (({"batch_size": 1}, {"TEST_BATCH_SIZE": ""}, []), 1),
    ],
)
def test_a_flag_counts_before_a_variable_before_the_file(case: Case, batch_size: int) -> None:
    result, loaded = run(*case)
    assert result.exit_code == 0, result.output
    assert loaded[0].batch_size == batch_size
    assert loaded[1].batch_size == 20


@pytest.mark.parametrize(
    ("section", "environment", "arguments", "url"),
    [
        ({"url": "file"}, {}, [], "file"),
        ({"url": "file"}, {"TEST_SERVER_URL_FILE": "{tmp}/variable"}, [], "variable-file"),
        ({"url": "file"}, {"TEST_SERVER_URL": "variable"}, [], "variable"),
        ({}, {"TEST_SERVER_URL": "variable"}, ["--server-url", "flag"], "flag"),
        ({}, {"TEST_SERVER_URL": "variable"}, ["--server-url-file", "{tmp}/flag"], "flag-file"),
        ({}, {"TEST_SERVER_URL_FILE": "{tmp}/variable"}, ["--server-url", "flag"], "flag"),
    ],
)
def test_a_secret_comes_from_a_file_too(
    tmp_path: Path, section: dict[str, Any], environment: dict[str, str], arguments: list[str], url: str
) -> None:
    for name in ("variable", "flag"):
        (tmp_path / name).write_text(f"{name}-file\n")
    environment = {name: value.format(tmp=tmp_path) for name, value in environment.items()}
    result, loaded = run(section, environment, [argument.format(tmp=tmp_path) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert loaded[0].url == url


def test_the_types_of_the_fields_are_those_of_the_flags() -> None:
    _, loaded = run({}, {"TEST_INSECURE": "true"}, ["--wait", "2", "--certificate", "c", "--mode", "existing"])
    assert loaded[0] == ServerSettings(insecure=True, wait_s=2.0, certificate="c", mode="existing")
    _, loaded = run({"insecure": True}, {}, ["--no-insecure"])
    assert not loaded[0].insecure


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (({}, {}, ["--batch-size", "many"]), "--batch-size"),
        (({}, {"TEST_BATCH_SIZE": "many"}, []), "TEST_BATCH_SIZE"),
        (({}, {}, ["--batch-size", "0"]), "provenance.server.batch_size: "),
        (({}, {}, ["--mode", "other"]), "--mode"),
        (({}, {}, ["--hidden", "2"]), "--hidden"),
        (({}, {}, ["--server-url-file", "/nowhere"]), "provenance.server.url_file: the file /nowhere cannot be read"),
        (({"url": ["hunter2"]}, {}, []), "provenance.server.url: Expected `str`, got `array`"),
        (({"batchsize": "hunter2"}, {}, []), "provenance.server.batchsize: "),
    ],
)
def test_what_is_wrong_ends_with_2_and_the_name_of_the_setting(case: Case, expected: str) -> None:
    result, loaded = run(*case)
    assert result.exit_code == 2
    assert expected in result.output
    assert "hunter2" not in result.output
    assert not loaded


def test_help_names_every_flag_its_variable_and_default() -> None:
    result, _ = run({}, {}, ["--help"])
    text = " ".join(result.output.split())
    for name in ("--server-url", "--server-url-file", "--batch-size", "--wait", "--insecure / --no-insecure"):
        assert name in text
    for variable in ("TEST_SERVER_URL", "TEST_SERVER_URL_FILE", "TEST_WAIT", "TEST_MODE"):
        assert variable in text
    assert "How many. [default: 10]" in text
    assert "hidden" not in text
    assert "mapping" not in text
