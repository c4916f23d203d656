"""Settings from values, flags and environment variables; addresses; counts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from msgspec import Meta, field

from provgate_runtime import ConfigurationError, Settings, convert, load_section, setting_options
from provgate_runtime.addresses import AddressOrOff, is_loopback, local_address
from provgate_runtime.counted import counted


class Inner(Settings, frozen=True):
    password: str = ""


class Outer(Settings, frozen=True):
    name: str
    count: Annotated[int, Meta(ge=1)] = 1
    wait_s: float = field(default=1.0, name="wait")
    mode: Literal["own", "existing"] = "own"
    inner: Inner = Inner()


def test_values_are_taken_by_their_names_in_the_file() -> None:
    assert convert({"name": "n", "wait": 2, "inner": {"password": "p"}}, Outer, "p") == Outer(
        name="n", wait_s=2.0, inner=Inner(password="p")
    )


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({}, "provenance.gateway.name: "),
        ({"name": 5}, "provenance.gateway.name: Expected `str`, got `int`"),
        ({"name": "n", "count": "hunter2"}, "provenance.gateway.count: Expected `int`, got `str`"),
        ({"name": "n", "count": True}, "provenance.gateway.count: Expected `int`, got `bool`"),
        ({"name": "n", "count": 1.5}, "provenance.gateway.count: Expected `int`, got `float`"),
        ({"name": "n", "count": 0}, "provenance.gateway.count: "),
        ({"name": "n", "wait_s": 1.0}, "provenance.gateway.wait_s: "),
        ({"name": "n", "mode": "other"}, "provenance.gateway.mode: "),
        ({"name": "n", "typo": "hunter2"}, "provenance.gateway.typo: "),
        ({"name": "n", "inner": {"pasword": "hunter2"}}, "provenance.gateway.inner.pasword: "),
        ({"name": "n", "inner": {"password": ["hunter2"]}}, "provenance.gateway.inner.password: Expected `str`"),
        ({"name": "n", "inner": "hunter2"}, "provenance.gateway.inner: Expected `object`, got `str`"),
        ({"name": "n", 5: "hunter2"}, "provenance.gateway"),
    ],
)
def test_an_error_has_the_path_and_not_the_value(values: dict[Any, Any], start: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        convert(values, Outer, "provenance.gateway")
    assert caught.value.message.startswith(start)
    assert "hunter2" not in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "end"),
    [
        ({"name": "n", "cuont": 1}, "unknown field `cuont`; did you mean `count`?"),
        ({"name": "n", "wait_s": 1.0}, "unknown field `wait_s`; did you mean `wait`?"),
        ({"name": "n", "pasword": "x"}, "unknown field `pasword`; did you mean `inner.password`?"),
        ({"name": "n", "inner": {"pasword": "x"}}, "unknown field `pasword`; did you mean `inner.password`?"),
        ({"name": "n", "qqq": 1}, "unknown field `qqq`"),
        ({}, "missing required field `name`"),
    ],
)
def test_an_unknown_setting_names_the_nearest(values: dict[str, Any], end: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        convert(values, Outer, "provenance.gateway")
    assert caught.value.message.endswith(end)


class Port(Settings, frozen=True):
    listen: Annotated[AddressOrOff | None, Meta(extra={"off": True})] = None
    quiet: bool = True


@pytest.mark.parametrize(
    ("written", "read"),
    [("off", "off"), ("'off'", "off"), ("127.0.0.1:80", "127.0.0.1:80"), ("'[::1]:80'", "[::1]:80"), ("null", None)],
)
def test_off_is_taken_as_it_is_written(written: str, read: str | None) -> None:
    assert convert(yaml.safe_load(f"{{listen: {written}, quiet: off}}"), Port, "p") == Port(listen=read, quiet=False)


@pytest.mark.parametrize("written", ["on", "80", "localhost", "'::1:80'", "'localhost:123456'"])
def test_an_invalid_address_is_refused(written: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^p\.listen: "):
        convert(yaml.safe_load(f"listen: {written}"), Port, "p")


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Outer(name="n").name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "[::]", "192.168.0.1", "10.0.0.1", "example.org", "localhost.example.org", "", "127.1", "[fe80::1]"],
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_program_that_listens_everywhere_is_reached_on_loopback() -> None:
    listens = ("0.0.0.0:1", "[::]:2", "10.0.0.1:3", "[::1]:4")
    assert [local_address(listen) for listen in listens] == ["127.0.0.1:1", "[::1]:2", "10.0.0.1:3", "[::1]:4"]


def test_counts_have_their_nouns() -> None:
    assert [counted(count, "queue") for count in (0, 1, 2)] == ["0 queues", "1 queue", "2 queues"]
    assert [counted(count, "entry", "entries") for count in (1, 5)] == ["1 entry", "5 entries"]


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
def test_an_error_exits_with_2_and_names_the_setting(case: Case, expected: str) -> None:
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
