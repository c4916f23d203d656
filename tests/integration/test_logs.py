"""What the programs log: JSON records, and one record at most of a client that breaks off."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.stack import Stack
from tests.support.credentials import Authority
from tests.support.fix_stack import add_large_relation
from tests.support.gateway_calls import connected, contents, outcome_of
from tests.support.polling import eventually
from tests.support.programs import records_of, start_logging_json

# Opens streams whose answers are larger than what is sent unread, and is gone.
VANISHING = """
import grpc, os, sys, time
from pathlib import Path
from provgate.v1 import model_pb2, provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
address, ca = sys.argv[1:]
channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(ca).read_bytes()))
stub = ProvenanceStorageStub(channel)
request = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_CNT_IN_DIR)
for call in [stub.RelationGetAll(request) for _ in range(4)]:
    next(call)
time.sleep(0.5)
os._exit(0)
"""


def test_all_processes_log_json(small_stack: Stack) -> None:
    start_logging_json(small_stack)
    with connected(small_stack.address) as (_, stub):
        assert outcome_of(stub.ContentAdd(iter([contents(3)]), timeout=20)).ok
    for program in (*small_stack.gateways, *small_stack.workers):
        assert program.terminate() == 0
        records = records_of(program.log_path)
        for record in records:
            assert list(record)[:6] == ["time", "level", "logger", "process", "action", "message"]
        processes = {record["process"] for record in records}
        # The workers' program, and both of its processes.
        assert len(processes) == (1 if program in small_stack.gateways else 3)


def test_clients_that_vanish_and_strangers_are_no_errors(
    workerless_stack: Stack, module_postgres_dsn: str, tmp_path: Path
) -> None:
    add_large_relation(module_postgres_dsn)
    authority = Authority(tmp_path, "ours")
    server = authority.issue("server")
    environment = workerless_stack.client_environment() | {
        "PROVGATE_LOG_FORMAT": "json",
        "PROVGATE_LOG_LEVEL": "debug",
        "PROVGATE_GATEWAY_TLS_CERTIFICATE": str(server.certificate),
        "PROVGATE_GATEWAY_TLS_KEY": str(server.key),
        "PROVGATE_GATEWAY_LISTEN": "127.0.0.1:0",
    }
    gateway = GatewayProgram(environment, workerless_stack.path / "grpc.log", "off")
    workerless_stack.gateways.append(gateway)
    gateway.start()
    gateway.wait_ready()
    host, _, port = gateway.address.rpartition(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while stranger.recv(1024):
            pass

    def abandoned() -> list[dict[str, object]]:
        return [
            record
            for record in records_of(gateway.log_path)
            if "ExecuteBatchError" in str(record) or record.get("action") == "call.abandon"
        ]

    def vanish() -> bool:
        command = [sys.executable, "-c", VANISHING, gateway.address, str(authority.ca)]
        subprocess.run(command, check=True, timeout=60)
        return bool(abandoned())

    eventually(vanish, "gRPC says that a client vanished")
    assert gateway.terminate() == 0
    for record in abandoned():
        assert (record["level"], record.get("action"), record.get("exc_info")) == ("debug", "call.abandon", None)
        assert str(record["peer"]).startswith("ipv4:127.0.0.1:")
        assert "disconnected during its call" in str(record["message"])
