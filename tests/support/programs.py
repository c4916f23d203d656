"""Gateways and worker programs as an operator sees them: commands, logs, health, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Final

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.process import ChildProgram
from provgate_stack.processes.programs import GatewayProgram, WorkerProgram, program_path
from provgate_stack.stack import Stack
from tests.support.gateway_calls import outcome_of_unary
from tests.support.polling import TIMEOUT_S, eventually


def end_of(program: ChildProgram, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Waits for the end of a program, and returns its exit code and log."""
    eventually(lambda: not program.alive, "the program ends", timeout_s)
    return program.terminate(), program.log_path.read_text(encoding="utf-8")


def failed_start(stack: Stack, **settings: Any) -> tuple[int, str]:
    program = stack.start_gateway(wait=False, **settings)
    code, log = end_of(program)
    assert not program.ready_file.exists()
    assert "Traceback" not in log
    return code, log


def with_path(stub: ProvenanceStorageStub) -> bool:
    return outcome_of_unary(lambda: stub.WithPath(pb2.WithPathRequest(), timeout=20)).ok


class HealthWatcher:
    """The statuses of the health service over time."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.statuses: list[str] = []
        self._call: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for response in self._call:
                self.statuses.append(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
        except grpc.RpcError:
            return

    def end(self) -> None:
        self._call.cancel()
        self._thread.join(TIMEOUT_S)


def send_signal(program: ChildProgram, number: signal.Signals = signal.SIGTERM) -> None:
    subprocess.run(["kill", f"-{number.name.removeprefix('SIG')}", str(program.pid)], check=True)


def run_workers(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [program_path("provgate-workers"), *arguments, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def config_with(stack: Stack, tmp_path: Path, **overrides: object) -> Path:
    document = yaml.safe_load(stack.config.read_text())
    document["provenance"]["rabbitmq"] |= overrides
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


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
    """Returns the records of a JSON log. The last line may be incomplete and is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
