"""Gateways as their operator sees them: how they start, end, and what they say of their health."""

from __future__ import annotations

import signal
import subprocess
import threading
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.process import ChildProgram
from provgate_stack.stack import Stack
from tests.integration.gateway_calls import eventually, outcome_of_unary


def end_of(program: ChildProgram, timeout_s: float = 20.0) -> tuple[int, str]:
    """Returns exit code and log of a gateway that does not start."""
    eventually(lambda: not program.alive, "the program ends", timeout_s)
    return program.terminate(), program.log_path.read_text(encoding="utf-8")


def failed_start(stack: Stack, **settings: Any) -> tuple[int, str]:
    program = stack.start_gateway(wait=False, **settings)
    code, log = end_of(program)
    assert not program.ready_file.exists()
    assert "Traceback" not in log
    return code, log


def with_path(stub: ProvenanceStorageStub) -> bool:
    return outcome_of_unary(lambda: stub.WithPath(pb2.WithPathRequest(), timeout=3)).ok


class HealthWatcher:
    """What the health service says over time."""

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
        self._thread.join(5)


def send_signal(program: ChildProgram, number: signal.Signals = signal.SIGTERM) -> None:
    subprocess.run(["kill", f"-{number.name.removeprefix('SIG')}", str(program.pid)], check=True)
