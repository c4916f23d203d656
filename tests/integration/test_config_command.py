"""`provgate config`, as it is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack


def config(stack: Stack, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [program_path("provgate"), "config", *arguments]
    return subprocess.run(
        command, env=stack.client_environment() | environment, capture_output=True, text=True, check=False
    )


def test_it_shows_the_configuration_of_a_stack_without_its_secrets(shared_stack: Stack) -> None:
    given = yaml.safe_load(shared_stack.config.read_text(encoding="utf-8"))["provenance"]
    ended = config(shared_stack, "show", PROVGATE_GATEWAY_MAX_CALLS="7", PROVGATE_TOKEN="hunter2")
    assert ended.returncode == 0, ended.stderr
    shown = yaml.safe_load(ended.stdout)["provenance"]
    assert shown["storage"]["url"] == given["storage"]["url"]
    assert shown["rabbitmq"]["url"] == "***"
    assert shown["rabbitmq"]["storage_config"]["cls"] == "postgresql"
    assert shown["gateway"]["max_calls"] == 7
    assert "max_calls: 7  # PROVGATE_GATEWAY_MAX_CALLS" in ended.stdout
    assert "hunter2" not in ended.stdout
    assert given["rabbitmq"]["url"] not in ended.stdout


def test_the_sample_configures_all_programs(shared_stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "sample.yml"
    path.write_text(config(shared_stack, "sample").stdout, encoding="utf-8")
    ended = config(shared_stack, "show", "--config", str(path))
    assert ended.returncode == 0, ended.stderr
    assert all(line.endswith((":", "# default")) for line in ended.stdout.splitlines())
