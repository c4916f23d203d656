"""Mutual TLS on every link and three roles, driven as users drive it: by the adapter, the command line and grpcurl."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg2.extensions import make_dsn, parse_dsn

from provgate_client.errors import GatewayUnavailableError, PermissionDeniedError, UnauthenticatedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack
from tests.integration.doctored import config_of, diagnosis
from tests.support.credentials import Authority, PemFiles
from tests.support.fix_secure_stack import Caller, SecureStack, client_tls
from tests.support.polling import eventually

DATE = datetime(2005, 4, 7, 22, 13, 13, tzinfo=UTC)
SERVICE = "provgate.v1.ProvenanceStorage"
CALLERS = [(role, kind) for role in ("reader", "writer", "admin") for kind in ("token", "certificate")]

of_callers = pytest.mark.parametrize("caller", CALLERS, ids=" by ".join)


def new_id() -> bytes:
    return secrets.token_bytes(20)


def run(environment: dict[str, str], *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    path = program_path(command[0])
    return subprocess.run(
        [path, *command[1:]], env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def adapter(secure: SecureStack, **settings: Any) -> ProvenanceStorageGrpc:
    return ProvenanceStorageGrpc(url=secure.stack.address, raise_on_failure=True, connect_timeout_s=2.0, **settings)


def provgate(secure: SecureStack, caller: Caller, path: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    storage = {"cls": "grpc", "url": secure.stack.address, **caller.settings(secure.authorities.ours)}
    if caller.token_file is not None:
        del storage["token"]
        storage["token_file"] = str(caller.token_file)
    config = path / "client.yaml"
    config.write_text(yaml.safe_dump({"provenance": {"storage": storage}}), encoding="utf-8")
    environment = secure.stack.client_environment() | {"PROVGATE_CONFIG": str(config)}
    done = run(environment, "provgate", *arguments, stdin=stdin)
    return done.returncode, done.stdout, done.stderr


def grpcurl(
    secure: SecureStack, ca: Authority, certificate: PemFiles | None, *call: str, token_file: Path | None = None
) -> tuple[int, str, str]:
    options = ["-cacert", str(ca.ca), "-connect-timeout", "5", "-max-time", "20"]
    if certificate is not None:
        options += ["-cert", str(certificate.certificate), "-key", str(certificate.key)]
    if token_file is not None:
        options += ["-H", f"authorization: Bearer {token_file.read_text(encoding='ascii')}"]
    done = run(secure.stack.client_environment(), "grpcurl", *options, *call)
    return done.returncode, done.stdout, done.stderr


@of_callers
def test_the_adapter(secure_stack: SecureStack, caller: tuple[str, str]) -> None:
    settings: dict[str, Any] = secure_stack.callers[caller].settings(secure_stack.authorities.ours)
    content = new_id()
    with adapter(secure_stack, **settings) as storage:
        if caller[0] == "reader":
            with pytest.raises(PermissionDeniedError):
                storage.content_add({content: DATE})
            assert storage.content_get([content]) == {}
        else:
            assert storage.content_add({content: DATE})
            assert storage.content_get([content]) == {content: DATE}


@of_callers
def test_the_command_line(secure_stack: SecureStack, caller: tuple[str, str], tmp_path: Path) -> None:
    calls = secure_stack.callers[caller]
    fact = {"id": new_id().hex(), "date": "2005-04-07T22:13:13+00:00"}
    code, _, told = provgate(secure_stack, calls, tmp_path, "add", "contents", stdin=json.dumps(fact))
    assert (code == 0) is (caller[0] != "reader"), told
    code, found, told = provgate(secure_stack, calls, tmp_path, "get", "contents", fact["id"])
    if caller[0] == "reader":
        assert not found
    else:
        assert json.loads(found) == fact, told


@of_callers
def test_grpcurl(secure_stack: SecureStack, caller: tuple[str, str]) -> None:
    calls, address = secure_stack.callers[caller], secure_stack.stack.address
    id = base64.b64encode(new_id()).decode()

    def call(method: str, request: dict[str, Any]) -> tuple[int, str, str]:
        arguments = ("-d", json.dumps(request), address, f"{SERVICE}/{method}")
        return grpcurl(
            secure_stack, secure_stack.authorities.ours, calls.certificate, *arguments, token_file=calls.token_file
        )

    _, added, told = call("ContentAdd", {"contents": [{"id": id, "date": "2005-04-07T22:13:13Z"}]})
    code, got, _ = call("ContentGet", {"ids": [id]})
    if caller[0] == "reader":
        assert "PermissionDenied" in told
        assert (code, got) == (0, "")
    else:
        assert '"acked_count": "1"' in added, told
        assert '"date": "2005-04-07T22:13:13Z"' in got


def test_a_certificate_of_ours_whose_name_is_not_known(secure_stack: SecureStack) -> None:
    ours = secure_stack.authorities.ours
    settings: dict[str, Any] = client_tls(ours, ours.issue("nobody.example", "nobody.example"))
    with adapter(secure_stack, **settings) as storage, pytest.raises(UnauthenticatedError):
        storage.content_get([new_id()])


def test_the_gateway_refuses_who_is_not_ours(secure_stack: SecureStack) -> None:
    ours, stranger = secure_stack.authorities.ours, secure_stack.authorities.stranger
    known = secure_stack.callers["admin", "certificate"].certificate
    forged = stranger.issue("admin.example", "admin.example")
    refused: list[dict[str, Any]] = [
        {"tls_ca_file": str(ours.ca)},
        client_tls(ours, forged),
        client_tls(stranger, known),
    ]
    for tls in refused:
        with pytest.raises(GatewayUnavailableError):
            adapter(secure_stack, **tls).open()
    token_file = secure_stack.callers["admin", "token"].token_file
    for ca, certificate in ((ours, None), (ours, forged), (stranger, known)):
        code, _, _ = grpcurl(
            secure_stack,
            ca,
            certificate,
            "-connect-timeout",
            "2",
            secure_stack.stack.address,
            "list",
            token_file=token_file,
        )
        assert code != 0


def log_of_workers(stack: Stack, expected: str, **overrides: Any) -> str:
    """The log of a worker program that cannot start, once it says what is expected."""
    program = stack.start_workers(wait=False, **overrides)
    try:
        eventually(lambda: expected in program.log_path.read_text("utf-8"), f"the log says {expected}", 30)
        assert not program.ready_file.exists()
    finally:
        program.terminate()
    log = program.log_path.read_text("utf-8")
    assert "Traceback" not in log
    return log


def test_programs_say_why_the_broker_is_no_good(secure_stack: SecureStack) -> None:
    settings = yaml.safe_load(secure_stack.stack.config.read_text("utf-8"))["provenance"]["rabbitmq"]
    password = settings["url"].split(":")[2].partition("@")[0]
    ours, stranger = secure_stack.authorities.ours, secure_stack.authorities.stranger
    nothing: dict[str, Any] = {"tls_cert_file": None, "tls_key_file": None}
    for overrides, expected in (
        (client_tls(stranger, ours.issue("programs")), "CERTIFICATE_VERIFY_FAILED"),
        (client_tls(ours, stranger.issue("programs")), "ALERT_UNKNOWN_CA"),
        (nothing, "ALERT_CERTIFICATE_REQUIRED"),
    ):
        assert password not in log_of_workers(secure_stack.stack, expected, **overrides)


def test_programs_say_why_the_database_is_no_good(secure_stack: SecureStack) -> None:
    storage_config = yaml.safe_load(secure_stack.stack.config.read_text("utf-8"))["provenance"]["rabbitmq"]
    dsn = storage_config["storage_config"]["db"]
    strangers = secure_stack.authorities.stranger
    stranger = str(strangers.issue("provgate").both)
    for changes, expected in (
        ({"sslrootcert": str(strangers.ca)}, "certificate verify failed"),
        ({"sslcert": stranger, "sslkey": stranger}, "unknown ca"),
        ({"sslcert": "/none", "sslkey": "/none"}, "certificate"),
    ):
        db = make_dsn(dsn, **changes)
        log = log_of_workers(secure_stack.stack, expected, storage_config={"cls": "postgresql", "db": db})
        assert parse_dsn(dsn)["password"] not in log


@of_callers
def test_doctor_asks_over_every_link(secure_stack: SecureStack, caller: tuple[str, str], tmp_path: Path) -> None:
    storage = secure_stack.callers[caller].settings(secure_stack.authorities.ours)
    found = diagnosis(secure_stack.stack, config_of(secure_stack.stack, tmp_path, storage=storage))
    assert found.amiss == set()
    assert len(found.of("certificates", "ok")) == 3
    assert len(found.of("gateway", "ok")) == 3
    assert storage.get("token", "no token") not in found.text
