"""Gateways and clients that encrypt, and know each other by their certificates."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.errors import GatewayUnavailableError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.programs import GatewayProgram
from tests.support.entries import entry_id
from tests.support.fix_stack import MakeStack
from tests.support.programs import with_path
from tests.support.scripted_workers import ScriptedWorkers

Pem = Callable[[str], str]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Pem:
    """Names a file of the certificate `server` or `client` of the authority `ours`, or one of `stranger`, its own."""
    path = tmp_path_factory.mktemp("pem")
    for name, issuer in (("ours", None), ("server", "ours"), ("client", "ours"), ("stranger", None)):
        _make_certificate(path, name, issuer)
    return lambda name: str(path / name)


def _make_certificate(path: Path, name: str, issuer: str | None) -> None:
    names = f"-subj /CN={name} -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    files = f"-keyout {path}/{name}.key -out {path}/{name}.crt"
    kind = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2"
    signing = f"-CA {path}/{issuer}.crt -CAkey {path}/{issuer}.key -addext basicConstraints=critical,CA:FALSE"
    command = f"openssl req {kind} {names} {files} {signing if issuer else ''}".split()
    subprocess.run(command, check=True, capture_output=True, timeout=30)


@pytest.fixture
def tls_gateway(make_stack: MakeStack, scripted_workers: ScriptedWorkers, pem: Pem) -> GatewayProgram:
    """A gateway that encrypts and takes every client."""
    return make_stack().start_gateway(tls_certificate=pem("server.crt"), tls_key=pem("server.key"))


@pytest.fixture
def strict_gateway(make_stack: MakeStack, scripted_workers: ScriptedWorkers, pem: Pem) -> GatewayProgram:
    """A gateway that encrypts and takes the clients of its own authority."""
    return make_stack().start_gateway(
        tls_certificate=pem("server.crt"), tls_key=pem("server.key"), tls_client_ca=pem("ours.crt")
    )


def _of_client(pem: Pem, name: str) -> dict[str, str]:
    return {"tls_cert_file": pem(f"{name}.crt"), "tls_key_file": pem(f"{name}.key")}


def _write_and_read(url: str, **settings: Any) -> None:
    with ProvenanceStorageGrpc(url=url, raise_on_failure=True, **settings) as storage:
        assert storage.content_add([entry_id(number) for number in range(1000)])
        assert storage.content_get([entry_id(1)]) == {}


def _check_unreachable(url: str, **settings: Any) -> None:
    with pytest.raises(GatewayUnavailableError, match="no gateway answers at"):
        ProvenanceStorageGrpc(url=url, connect_timeout_s=1.0, **settings).open()


@pytest.mark.parametrize("scheme", ["", "grpcs://", "https://"])
def test_an_adapter_that_trusts_the_authority(tls_gateway: GatewayProgram, pem: Pem, scheme: str) -> None:
    _write_and_read(f"{scheme}{tls_gateway.address}", tls_ca_file=pem("ours.crt"))
    assert tls_gateway.terminate() == 0


def test_an_adapter_that_trusts_another_authority_or_none(tls_gateway: GatewayProgram, pem: Pem) -> None:
    _check_unreachable(tls_gateway.address, tls_ca_file=pem("stranger.crt"))
    # The public authorities, which come with gRPC, do not know it either.
    _check_unreachable(tls_gateway.address, tls=True)
    _check_unreachable(tls_gateway.address)
    _write_and_read(tls_gateway.address, tls_ca_file=pem("ours.crt"))


def test_an_adapter_with_a_client_certificate(strict_gateway: GatewayProgram, pem: Pem) -> None:
    _write_and_read(strict_gateway.address, tls_ca_file=pem("ours.crt"), **_of_client(pem, "client"))
    assert strict_gateway.terminate() == 0


def test_an_adapter_with_another_client_certificate_or_none(strict_gateway: GatewayProgram, pem: Pem) -> None:
    _check_unreachable(strict_gateway.address, tls_ca_file=pem("ours.crt"))
    _check_unreachable(strict_gateway.address, tls_ca_file=pem("ours.crt"), **_of_client(pem, "stranger"))
    _check_unreachable(strict_gateway.address, tls_ca_file=pem("stranger.crt"), **_of_client(pem, "client"))
    _write_and_read(strict_gateway.address, tls_ca_file=pem("ours.crt"), **_of_client(pem, "client"))


def test_an_adapter_that_encrypts_before_a_gateway_that_does_not(make_stack: MakeStack, pem: Pem) -> None:
    program = make_stack().start_gateway()
    _check_unreachable(program.address, tls_ca_file=pem("ours.crt"))
    assert program.terminate() == 0


def test_any_client_of_grpc(tls_gateway: GatewayProgram, pem: Pem) -> None:
    credentials = grpc.ssl_channel_credentials(Path(pem("ours.crt")).read_bytes())
    with grpc.secure_channel(tls_gateway.address, credentials) as channel:
        assert with_path(ProvenanceStorageStub(channel))
