"""TLS between clients and a gateway: whom it lets in, whom certificates name, and files replaced while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.errors import GatewayUnavailableError, PermissionDeniedError, UnauthenticatedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_gateway.access.roles import Role
from provgate_stack.processes.programs import GatewayProgram
from tests.support.credentials import Authority, PemFiles, issue_token
from tests.support.entries import entry_id
from tests.support.fix_secure_stack import client_tls
from tests.support.fix_stack import MakeStack
from tests.support.gateway_calls import OpenWrite, contents, outcome_of_unary
from tests.support.scripted_workers import ScriptedWorkers

STAYS = "what was read before stays in force"
Start = Callable[..., GatewayProgram]


@dataclass
class Files:
    """The files of a gateway, and the authorities of what is in them.

    Attributes:
        path: of the directory.
        server: the authority of the gateway's certificate.
        clients: that of the clients' certificates.
    """

    path: Path
    server: Authority
    clients: Authority

    def write(self) -> None:
        """Makes the gateway's files anew."""
        certificate = self.server.issue("server")
        (self.path / "server.key").write_bytes(certificate.key.read_bytes())
        (self.path / "server.crt").write_bytes(certificate.certificate.read_bytes())
        (self.path / "clients.crt").write_bytes(self.clients.ca.read_bytes())

    def settings(self, of_clients: bool = False) -> dict[str, str]:
        files = {"tls_certificate": str(self.path / "server.crt"), "tls_key": str(self.path / "server.key")}
        return {**files, "tls_client_ca": str(self.path / "clients.crt")} if of_clients else files

    def credentials(self, client: PemFiles | None = None) -> grpc.ChannelCredentials:
        """Returns what a client has that trusts the gateway's authority."""
        trusted = self.server.ca.read_bytes()
        if client is None:
            return grpc.ssl_channel_credentials(trusted)
        return grpc.ssl_channel_credentials(trusted, client.key.read_bytes(), client.certificate.read_bytes())


@pytest.fixture
def new_authority(tmp_path: Path) -> Callable[[], Authority]:
    made: list[Authority] = []

    def make() -> Authority:
        made.append(Authority(tmp_path, f"authority-{len(made)}"))
        return made[-1]

    return make


@pytest.fixture
def files(tmp_path: Path, new_authority: Callable[[], Authority]) -> Files:
    found = Files(tmp_path, new_authority(), new_authority())
    found.write()
    return found


@pytest.fixture
def start(make_stack: MakeStack, scripted_workers: ScriptedWorkers) -> Iterator[Start]:
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
        return outcome_of_unary(lambda: stub.WithPath(pb2.WithPathRequest(), timeout=20)).code


def log_of(program: GatewayProgram) -> str:
    return program.log_path.read_text(encoding="utf-8")


def check_writes(url: str, **settings: Any) -> None:
    with ProvenanceStorageGrpc(url=url, raise_on_failure=True, **settings) as storage:
        assert storage.content_add([entry_id(number) for number in range(1000)])
        assert storage.content_get([entry_id(1)]) == {}


def check_unreachable(url: str, **settings: Any) -> None:
    with pytest.raises(GatewayUnavailableError, match="no gateway answers at"):
        ProvenanceStorageGrpc(url=url, connect_timeout_s=1.0, **settings).open()


def test_an_adapter_reaches_a_gateway_whose_authority_it_trusts(files: Files, start: Start) -> None:
    address, trusted = start(**files.settings()).address, str(files.server.ca)
    for scheme in ("", "grpcs://", "https://"):
        check_writes(f"{scheme}{address}", tls_ca_file=trusted)
    check_unreachable(address, tls_ca_file=str(files.clients.ca))
    # The public authorities, which come with gRPC, do not know it either.
    check_unreachable(address, tls=True)
    check_unreachable(address)
    plain = start().address
    check_unreachable(plain, tls_ca_file=trusted)
    check_writes(plain)


def test_a_gateway_that_asks_for_certificates_takes_those_of_its_authority(files: Files, start: Start) -> None:
    url = start(**files.settings(of_clients=True)).address
    client, stranger = files.clients.issue("client"), files.server.issue("client")
    check_writes(url, **client_tls(files.server, client))
    check_unreachable(url, tls_ca_file=str(files.server.ca))
    check_unreachable(url, **client_tls(files.server, stranger))
    check_unreachable(url, **client_tls(files.clients, client))
    check_writes(url, **client_tls(files.server, client))


def test_a_new_certificate_is_served_and_connections_that_are_open_go_on(
    files: Files, start: Start, new_authority: Callable[[], Authority]
) -> None:
    program, before = start(**files.settings()), files.credentials()
    with grpc.secure_channel(program.address, before) as channel:
        call = OpenWrite(ProvenanceStorageStub(channel))
        call.send(contents(1))
        call.wait_for(lambda progress: progress.acked_count == 1)
        files.server = new_authority()
        files.write()
        assert code_of_call(program, files.credentials()) is grpc.StatusCode.OK
        assert code_of_call(program, before) is grpc.StatusCode.UNAVAILABLE
        call.send(contents(1, start=1))
        assert call.end().counts == (2, 2, 2)
    assert "read again: " in log_of(program)
    assert STAYS not in log_of(program)


def test_a_wrong_file_is_logged_once_and_the_old_ones_stay(files: Files, start: Start) -> None:
    program, client = start(**files.settings(of_clients=True)), files.clients.issue("client.example")
    before = files.credentials(client)
    for broken in ("server.crt", "server.key", "clients.crt"):
        for junk in ("junk", None):
            logged_count = log_of(program).count(STAYS)
            if junk is None:
                (files.path / broken).unlink()
            else:
                (files.path / broken).write_text(junk)
            for _ in range(3):
                assert code_of_call(program, before) is grpc.StatusCode.OK
            assert log_of(program).count(STAYS) == logged_count + 1
        files.write()
        assert code_of_call(program, before) is grpc.StatusCode.OK


def test_the_authority_of_clients_is_replaced(
    files: Files, start: Start, new_authority: Callable[[], Authority]
) -> None:
    program = start(**files.settings(of_clients=True))
    old = files.clients.issue("client.example")
    assert code_of_call(program, files.credentials(old)) is grpc.StatusCode.OK
    files.clients = new_authority()
    files.write()
    new = files.clients.issue("client.example")
    assert code_of_call(program, files.credentials(new)) is grpc.StatusCode.OK
    assert code_of_call(program, files.credentials(old)) is grpc.StatusCode.UNAVAILABLE


def test_names_of_certificates_have_roles(files: Files, start: Start) -> None:
    with (files.path / "tokens").open("a", encoding="utf-8") as tokens:
        token = issue_token(tokens.write, "ci", Role.WRITER)
    certificates = {"indexer.example": "writer", "auditor": "reader"}
    access = {"certificates": certificates, "tokens_file": str(files.path / "tokens")}
    url = start(**files.settings(of_clients=True), access=access).address

    def opened(hosts: list[str], given: str | None = None, common_name: str = "client") -> ProvenanceStorageGrpc:
        client: dict[str, Any] = client_tls(files.server, files.clients.issue(common_name, *hosts))
        return ProvenanceStorageGrpc(url=url, token=given, **client)

    for hosts, given in (
        (["indexer.example"], None),
        (["other.example", "indexer.example"], None),
        (["auditor", "other.example"], token),
        (["stranger.example"], token),
    ):
        with opened(hosts, given) as storage:
            assert storage.content_add([entry_id(1)])
    with opened(["other.example"], common_name="auditor") as storage:
        assert storage.with_path()
        with pytest.raises(PermissionDeniedError):
            storage.content_add([entry_id(1)])
    for host, given in (("stranger.example", None), ("indexer.example", "wrong")):
        with opened([host], given) as storage, pytest.raises(UnauthenticatedError):
            storage.with_path()
