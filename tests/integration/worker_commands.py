"""Commands of `provgate-workers`, run to their end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack


def run(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [program_path("provgate-workers"), *arguments, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def config_with(stack: Stack, tmp_path: Path, **overrides: object) -> Path:
    document = yaml.safe_load(stack.config.read_text())
    document["provenance"]["rabbitmq"] |= overrides
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
