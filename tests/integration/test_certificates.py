"""Certificates: whom they name, and what happens when they are replaced under a gateway that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.errors import PermissionDeniedError, UnauthenticatedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_gateway.access.roles import Role
from provgate_stack.processes.programs import GatewayProgram
from tests.support.credentials import issue_token
from tests.support.entries import entry_id
from tests.support.fix_stack import MakeStack
from tests.support.gateway_calls import OpenWrite, contents, outcome_of_unary
from tests.support.scripted_workers import ScriptedWorkers

STAYS = "the last valid content stays in force"


@dataclass
class Files:
    """The files of a gateway, and those who issue what is in them.

    Attributes:
        path: of the directory.
        server: the authority of the gateway's certificate.
        clients: that of the clients' certificates.
    """

    path: Path
    server: trustme.CA = field(default_factory=trustme.CA)
    clients: trustme.CA = field(default_factory=trustme.CA)

    def write(self) -> None:
        """Has the gateway's files be of the authorities."""
        certificate = self.server.issue_cert("127.0.0.1")
        (self.path / "server.key").write_bytes(certificate.private_key_pem.bytes())
        (self.path / "server.crt").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        (self.path / "clients.crt").write_bytes(self.clients.cert_pem.bytes())

    def settings(self, of_clients: bool = False) -> dict[str, str]:
        files = {"tls_certificate": str(self.path / "server.crt"), "tls_key": str(self.path / "server.key")}
        return {**files, "tls_client_ca": str(self.path / "clients.crt")} if of_clients else files

    def credentials(self, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
        """Returns what a client has that trusts the gateway's authority."""
        if client is None:
            return grpc.ssl_channel_credentials(self.server.cert_pem.bytes())
        key, chain = client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
        return grpc.ssl_channel_credentials(self.server.cert_pem.bytes(), key, chain)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    found = Files(tmp_path)
    found.write()
    return found


@pytest.fixture
def start(make_stack: MakeStack, scripted_workers: ScriptedWorkers) -> Iterator[Callable[..., GatewayProgram]]:
    """Starts a gateway, which must end well."""
    started: list[GatewayProgram] = []

    def start_one(**settings: Any) -> GatewayProgram:
        started.append(make_stack().start_gateway(**settings))
        return started[-1]

    yield start_one
    assert [program.terminate() for program in started] == [0] * len(started)


def code_of_call(program: GatewayProgram, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    """Returns how a call over a new connection ends."""
    # Channels of equal credentials would share a connection, and with it the certificate that it was made with.
    with grpc.secure_channel(program.address, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = ProvenanceStorageStub(channel)
        return outcome_of_unary(lambda: stub.WithPath(pb2.WithPathRequest(), timeout=5)).code


def log_of(program: GatewayProgram) -> str:
    return program.log_path.read_text(encoding="utf-8")


def test_a_new_certificate_is_served_and_connections_that_are_open_go_on(
    files: Files, start: Callable[..., GatewayProgram]
) -> None:
    program, before = start(**files.settings()), files.credentials()
    with grpc.secure_channel(program.address, before) as channel:
        call = OpenWrite(ProvenanceStorageStub(channel))
        call.send(contents(1))
        call.wait_for(lambda progress: progress.acked_count == 1)
        files.server = trustme.CA()
        files.write()
        assert code_of_call(program, files.credentials()) is grpc.StatusCode.OK
        assert code_of_call(program, before) is grpc.StatusCode.UNAVAILABLE
        call.send(contents(1, start=1))
        assert call.end().counts == (2, 2, 2)
    assert "read again: " in log_of(program)
    assert STAYS not in log_of(program)


@pytest.mark.parametrize("broken", ["server.crt", "server.key", "clients.crt"])
def test_a_wrong_file_is_logged_once_and_the_old_ones_stay(
    files: Files, start: Callable[..., GatewayProgram], broken: str
) -> None:
    program, client = start(**files.settings(of_clients=True)), files.clients.issue_cert("client.example")
    before = files.credentials(client)
    for spoil in (lambda: (files.path / broken).write_text("junk"), lambda: (files.path / broken).unlink()):
        logged_count = log_of(program).count(STAYS)
        spoil()
        for _ in range(3):
            assert code_of_call(program, before) is grpc.StatusCode.OK
        assert log_of(program).count(STAYS) == logged_count + 1
    files.server = trustme.CA()
    files.write()
    assert code_of_call(program, files.credentials(client)) is grpc.StatusCode.OK


def test_the_authority_of_clients_is_replaced(files: Files, start: Callable[..., GatewayProgram]) -> None:
    program = start(**files.settings(of_clients=True))
    old = files.clients.issue_cert("client.example")
    assert code_of_call(program, files.credentials(old)) is grpc.StatusCode.OK
    files.clients = trustme.CA()
    files.write()
    new = files.clients.issue_cert("client.example")
    assert code_of_call(program, files.credentials(new)) is grpc.StatusCode.OK
    assert code_of_call(program, files.credentials(old)) is grpc.StatusCode.UNAVAILABLE


@dataclass
class Client:
    """Settings of an adapter by its certificate."""

    files: Files
    number: int = 0

    def settings(self, certificate: trustme.LeafCert) -> dict[str, Any]:
        self.number += 1
        names = {name: self.files.path / f"client-{self.number}.{name}" for name in ("ca", "crt", "key")}
        names["ca"].write_bytes(self.files.server.cert_pem.bytes())
        names["crt"].write_bytes(certificate.cert_chain_pems[0].bytes())
        names["key"].write_bytes(certificate.private_key_pem.bytes())
        return {
            "tls_ca_file": str(names["ca"]),
            "tls_cert_file": str(names["crt"]),
            "tls_key_file": str(names["key"]),
        }


def test_names_of_certificates_have_roles(files: Files, start: Callable[..., GatewayProgram]) -> None:
    (files.path / "tokens").touch()
    with (files.path / "tokens").open("a", encoding="utf-8") as opened:
        token = issue_token(opened.write, "ci", Role.WRITER)
    certificates = {"indexer.example": "writer", "auditor": "reader"}
    access = {"certificates": certificates, "tokens_file": str(files.path / "tokens")}
    url = start(**files.settings(of_clients=True), access=access).address
    client, issue_cert = Client(files), files.clients.issue_cert
    writers = [
        client.settings(issue_cert("indexer.example")),
        client.settings(issue_cert("other.example", "indexer.example", common_name="auditor")),
        {**client.settings(issue_cert("auditor", "other.example")), "token": token},
        {**client.settings(issue_cert("stranger.example")), "token": token},
    ]
    for settings in writers:
        with ProvenanceStorageGrpc(url=url, **settings) as storage:
            assert storage.content_add([entry_id(1)])
    with ProvenanceStorageGrpc(url=url, **client.settings(issue_cert(common_name="auditor"))) as storage:
        assert storage.with_path()
        with pytest.raises(PermissionDeniedError):
            storage.content_add([entry_id(1)])
    known = client.settings(issue_cert("indexer.example"))
    for settings in (client.settings(issue_cert("stranger.example")), {**known, "token": "wrong"}):
        with ProvenanceStorageGrpc(url=url, **settings) as storage, pytest.raises(UnauthenticatedError):
            storage.with_path()
