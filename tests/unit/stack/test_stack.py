"""The configuration of a stack, and the environment of its programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.programs import program_environment
from provgate_stack.stack import Stack

URL = "amqp://user:secret@127.0.0.1:1/v"
STORAGE = {"cls": "mongodb", "db": "mongodb://user:secret@127.0.0.1:2/d", "read_timeout_s": 3}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[StackDirectory]:
    directory = StackDirectory.claim(tmp_path, "stack")
    yield directory
    directory.remove()


def sections(stack: Stack) -> dict[str, Any]:
    content: dict[str, dict[str, Any]] = yaml.safe_load(stack.config.read_text(encoding="utf-8"))
    return content["provenance"]


def test_configuration_names_servers_and_gateway(directory: StackDirectory) -> None:
    stack = Stack(URL, STORAGE, directory)
    assert sections(stack) == {
        "storage": {"cls": "grpc", "url": stack.address},
        "rabbitmq": {"url": URL, "storage_config": STORAGE},
        "gateway": {"listen": stack.address},
    }


def test_overrides_are_laid_over_the_defaults(directory: StackDirectory) -> None:
    stack = Stack(URL, STORAGE, directory, {"rabbitmq": {"processes": 1, "url": "amqp://other"}, "gateway": {"a": 1}})
    rabbitmq = sections(stack)["rabbitmq"]
    assert rabbitmq["processes"] == 1
    assert rabbitmq["url"] == "amqp://other"
    assert rabbitmq["storage_config"] == STORAGE
    assert sections(stack)["gateway"] == {"listen": stack.address, "a": 1}


def test_configuration_is_for_its_owner_alone(directory: StackDirectory) -> None:
    assert Stack(URL, STORAGE, directory).config.stat().st_mode & 0o077 == 0


def test_stacks_of_one_directory_have_files_and_ports_of_their_own(directory: StackDirectory) -> None:
    one, two = Stack(URL, STORAGE, directory, name="one"), Stack(URL, STORAGE, directory, name="two")
    assert one.config != two.config
    assert one.address != two.address


def test_stop_before_start_does_nothing(directory: StackDirectory) -> None:
    with Stack(URL, STORAGE, directory) as stack:
        stack.stop()
        stack.kill()


def test_programs_are_configured_by_the_file_alone(directory: StackDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVGATE_AMQP_URL", "amqp://elsewhere")
    monkeypatch.setenv("SWH_CONFIG_FILENAME", "/elsewhere")
    monkeypatch.setenv("UNRELATED", "kept")
    environment = program_environment(directory, "gateway", Path("/c.yaml"))
    assert environment["PROVGATE_CONFIG"] == "/c.yaml"
    assert environment["UNRELATED"] == "kept"
    assert not {"PROVGATE_AMQP_URL", "SWH_CONFIG_FILENAME"} & environment.keys()
