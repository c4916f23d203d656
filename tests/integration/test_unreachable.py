"""Why a gateway cannot be reached: the adapter tells it, from real sockets and real certificates."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from provgate_client.errors import GatewayUnavailableError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.process import free_ports

OURS, STRANGER = trustme.CA(), trustme.CA()


@contextmanager
def server(certificate: trustme.LeafCert | None = None, *, asks_clients: bool = False) -> Iterator[str]:
    """A server of gRPC; gives its address."""
    made = grpc.server(ThreadPoolExecutor(1))
    if certificate is None:
        port = made.add_insecure_port("127.0.0.1:0")
    else:
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        authority = OURS.cert_pem.bytes() if asks_clients else None
        pair = [(certificate.private_key_pem.bytes(), chain)]
        port = made.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair, authority, asks_clients))
    made.start()
    yield f"127.0.0.1:{port}"
    made.stop(None).wait()


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def at(address: str) -> Iterator[str]:
    yield address


def issued(host: str = "127.0.0.1", days: int = 1) -> trustme.LeafCert:
    until = datetime.now(UTC) + timedelta(days=days)
    return OURS.issue_cert(host, not_before=until - timedelta(days=30), not_after=until)


CASES: dict[str, tuple[Callable[[], AbstractContextManager[str]], trustme.CA | None, str]] = {
    "refused": (lambda: at(f"127.0.0.1:{free_ports(1)[0]}"), None, "the connection is refused"),
    "name": (lambda: at("nowhere.invalid:50051"), None, "the name is not found"),
    "plain to TLS": (lambda: server(issued()), None, "it closes the connection: it may require TLS"),
    "TLS to plain": (server, OURS, "it does not use TLS, but the client does"),
    "expired": (lambda: server(issued(days=-1)), OURS, "its certificate has expired"),
    "another name": (lambda: server(issued("elsewhere.example")), OURS, "its certificate is for another name"),
    "stranger": (lambda: server(issued()), STRANGER, "its certificate is from no authority that the client trusts"),
    "no client certificate": (
        lambda: server(issued(), asks_clients=True),
        OURS,
        "it closes the connection in the TLS handshake: it may require a client certificate",
    ),
    "silent": (silent, None, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_the_last_cause_is_told(case: str, tmp_path: Path) -> None:
    where, authority, cause = CASES[case]
    settings: dict[str, Any] = {}
    if authority is not None:
        ca = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        settings["tls_ca_file"] = str(ca)
    with where() as address, pytest.raises(GatewayUnavailableError) as raised:
        ProvenanceStorageGrpc(url=address, connect_timeout_s=2.0, **settings).open()
    message = str(raised.value)
    assert message.startswith(f"no gateway answers at {address} within 2 s: {cause or 'it '}")
