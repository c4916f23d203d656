"""Values become settings, or an error that names the key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import yaml
from msgspec import Meta, field

from provgate_runtime import ConfigurationError, Settings, convert
from provgate_runtime.addresses import AddressOrOff


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
def test_what_is_wrong_is_told_with_its_path_and_without_its_value(values: dict[Any, Any], start: str) -> None:
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
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^p\.listen: "):
        convert(yaml.safe_load(f"listen: {written}"), Port, "p")


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Outer(name="n").name = "other"  # type: ignore[misc]
