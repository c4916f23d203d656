"""The sample configuration: it is current, it names everything, and what it shows can be used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from provgate_client.cli.main import main
from provgate_operations.config.effective import SECTIONS
from provgate_operations.config.sample import sample
from provgate_runtime import Settings, convert
from provgate_storage.mongodb import MongoDbSettings
from provgate_storage.postgresql import PostgreSqlSettings
from provgate_storage.registry import local_storage

FILE = Path(__file__).resolve().parents[3] / "docs" / "provgate.sample.yml"


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


def test_the_file_in_docs_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == sample(), "run `provgate config sample > docs/provgate.sample.yml`"


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(main, ["config", "sample"])
    assert result.exit_code == 0
    assert result.output == sample()


def test_as_it_stands_it_sets_nothing() -> None:
    assert yaml.safe_load(sample()) == {"provenance": dict.fromkeys(("storage", "rabbitmq", "gateway"))}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_with_all_keys_set_a_section_loads(section: Any) -> None:
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
def test_with_all_keys_set_nothing_but_null_differs_from_the_defaults(section: Any) -> None:
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
