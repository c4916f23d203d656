"""The address that the gateway serves on, and its credentials."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from provgate_gateway.access.certificates import server_credentials
from provgate_gateway.server import port_in_use
from provgate_gateway.settings import GatewaySettings
from provgate_runtime import ConfigurationError, convert


def settings(**values: Any) -> GatewaySettings:
    return convert(values, GatewaySettings, "provenance.gateway")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `a.crt`, `a.key`, `b.crt`, `b.key`, an encrypted `a.enc`, and `junk`."""
    path = tmp_path_factory.mktemp("pem")
    for name in ("a", "b"):
        _openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost",
            f"-keyout {path}/{name}.key -out {path}/{name}.crt",
        )
    _openssl(f"pkey -in {path}/a.key -aes128 -passout pass:hunter2 -out {path}/a.enc")
    (path / "junk").write_text("junk")
    return path


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *" ".join(arguments).split()], check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize("listen", ["127.0.0.1:50051", "localhost:0", "[::1]:50051"])
def test_plain_text_on_loopback(listen: str) -> None:
    assert server_credentials(settings(listen=listen)) is None


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "192.168.0.1:1", "example.org:1"])
def test_plain_text_elsewhere_needs_insecure(listen: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^provenance\.gateway\.listen: .*in plain text.*--insecure"):
        server_credentials(settings(listen=listen))
    assert server_credentials(settings(listen=listen, insecure=True)) is None


@pytest.mark.parametrize("listen", ["", "50051", ":50051", "host", "host:", "host:port", "::1:50051", "a:b:1"])
def test_an_address_is_host_and_port(listen: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^provenance\.gateway\.listen: "):
        settings(listen=listen)


def test_a_port_that_is_too_large_is_refused() -> None:
    # gRPC would serve on port 34463.
    with pytest.raises(ConfigurationError, match=r"^provenance\.gateway\.listen: a port is at most 65535, not 99999"):
        server_credentials(settings(listen="127.0.0.1:99999"))


def test_a_port_is_taken_if_it_is_on_any_address_of_the_host() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert not port_in_use("127.0.0.2", port)
        taken.listen()
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            assert port_in_use(host, port)
        assert not port_in_use("127.0.0.2", port)
        assert not port_in_use("127.0.0.1", 0)
    assert not port_in_use("127.0.0.1", port)
    assert not port_in_use("host.invalid", port)


def test_a_certificate_allows_any_address(pem: Path) -> None:
    files = {"tls_certificate": f"{pem}/a.crt", "tls_key": f"{pem}/a.key"}
    assert isinstance(server_credentials(settings(listen="0.0.0.0:1", **files)), grpc.ServerCredentials)
    with_clients = settings(listen="0.0.0.0:1", tls_client_ca=f"{pem}/b.crt", **files)
    assert isinstance(server_credentials(with_clients), grpc.ServerCredentials)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tls_certificate": "a.crt"}, "tls_certificate and tls_key: give both or neither"),
        ({"tls_key": "a.key"}, "tls_certificate and tls_key: give both or neither"),
        ({"tls_client_ca": "a.crt"}, "tls_client_ca: it needs tls_certificate and tls_key"),
        ({"tls_certificate": "none", "tls_key": "a.key"}, "tls_certificate: .*none cannot be read: No such file"),
        ({"tls_certificate": "a.crt", "tls_key": "none"}, "tls_key: .*none cannot be read: No such file"),
        ({"tls_certificate": "a.crt", "tls_key": "."}, "tls_key: .* cannot be read: Is a directory"),
        ({"tls_certificate": "junk", "tls_key": "a.key"}, "tls_certificate and tls_key: .* not a PEM certificate"),
        ({"tls_certificate": "a.crt", "tls_key": "junk"}, "tls_certificate and tls_key: .* not a PEM certificate"),
        ({"tls_certificate": "a.crt", "tls_key": "b.key"}, "tls_certificate and tls_key: .* its private key"),
        ({"tls_certificate": "a.crt", "tls_key": "a.enc"}, "tls_certificate and tls_key: .* without a passphrase"),
        (
            {"tls_certificate": "a.crt", "tls_key": "a.key", "tls_client_ca": "none"},
            "tls_client_ca: .*none cannot be read",
        ),
        (
            {"tls_certificate": "a.crt", "tls_key": "a.key", "tls_client_ca": "junk"},
            "tls_client_ca: .*junk is not a PEM file",
        ),
    ],
)
def test_wrong_files_are_refused(pem: Path, files: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^provenance\.gateway\.{expected}"):
        server_credentials(settings(**{name: str(pem / file) for name, file in files.items()}))
