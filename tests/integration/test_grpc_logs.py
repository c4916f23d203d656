"""What a gateway logs of clients that break off: one record each at most, and nothing beside our records."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.stack import Stack
from tests.certificates import Authority
from tests.integration.gateway_calls import eventually
from tests.integration.json_logs import records_of

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


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def gateway(workerless_stack: Stack, module_postgres_dsn: str, authority: Authority) -> Iterator[GatewayProgram]:
    """A gateway that encrypts and logs all it has as JSON, before a storage with a relation of 32 MB."""
    with closing(psycopg2.connect(module_postgres_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO content_in_directory SELECT substr(sha256(n::text::bytea), 1, 20), "
            "substr(sha256(n::text::bytea), 1, 20), (repeat('x', 4000) || n)::bytea FROM generate_series(1, 8000) n"
        )
    server = authority.issue("server")
    environment = workerless_stack.client_environment() | {
        "PROVGATE_LOG_FORMAT": "json",
        "PROVGATE_LOG_LEVEL": "debug",
        "PROVGATE_GATEWAY_TLS_CERTIFICATE": str(server.certificate),
        "PROVGATE_GATEWAY_TLS_KEY": str(server.key),
        "PROVGATE_GATEWAY_LISTEN": "127.0.0.1:0",
    }
    program = GatewayProgram(environment, workerless_stack.path / "grpc.log", "off")
    program.start()
    program.wait_ready()
    yield program
    assert program.terminate() == 0


def test_clients_that_vanish_and_strangers_are_no_errors(gateway: GatewayProgram, authority: Authority) -> None:
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

    eventually(vanish, "gRPC says that a client vanished", 60)
    for record in abandoned():
        assert (record["level"], record.get("action"), record.get("exc_info")) == ("debug", "call.abandon", None)
        assert str(record["peer"]).startswith("ipv4:127.0.0.1:")
        assert "disconnected during its call" in str(record["message"])
