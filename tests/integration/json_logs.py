"""Programs that log JSON, and what they logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from provgate_stack.processes.programs import GatewayProgram, WorkerProgram
from provgate_stack.stack import Stack

_JSON: Final = {"PROVGATE_LOG_FORMAT": "json"}


def start_logging_json(stack: Stack) -> None:
    """Starts a worker program and a gateway of a stack."""
    workers = WorkerProgram(stack.client_environment() | _JSON, stack.path / "workers-json.log", "off")
    stack.workers.append(workers)
    workers.start()
    workers.wait_ready()
    gateway = GatewayProgram(stack.client_environment() | _JSON, stack.path / "gateway-json.log", "off")
    stack.gateways.append(gateway)
    gateway.start()
    gateway.wait_ready()


def records_of(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a log: every line is one, but for the last where it is being written."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
