"""Mutual TLS on every link, driven as users drive it: by the adapter, the command line and grpcurl."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg2.extensions import make_dsn, parse_dsn

from provgate_client.adapter import ProvenanceStorageGrpc
from provgate_client.errors import GatewayUnavailableError
from provgate_stack.programs import program_path
from provgate_stack.stack import Stack
from tests.certificates import Authority, PemFiles
from tests.fix_secure_stack import Authorities, client_tls
from tests.integration.gateway_calls import eventually

CONTENT = "ce013625030ba8dba906f756967f9e9ca394464a"
DATE = datetime(2005, 4, 7, 22, 13, 13, tzinfo=UTC)
SERVICE = "provgate.v1.ProvenanceStorage"


def run(stack: Stack, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **stack.client_environment()}
    path = program_path(command[0])
    return subprocess.run(
        [path, *command[1:]], env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def grpcurl(stack: Stack, ca: Authority, shown: PemFiles | None, *call: str) -> subprocess.CompletedProcess[str]:
    certificate = [] if shown is None else ["-cert", str(shown.certificate), "-key", str(shown.key)]
    return run(stack, "grpcurl", "-cacert", str(ca.ca), *certificate, *call)


def test_the_adapter_writes_and_reads(secure_stack: Stack, authorities: Authorities) -> None:
    tls: dict[str, Any] = client_tls(authorities.ours, authorities.ours.issue("adapter"))
    with ProvenanceStorageGrpc(url=secure_stack.address, raise_on_failure=True, **tls) as storage:
        assert storage.content_add({bytes.fromhex(CONTENT): DATE})
        assert storage.content_get([bytes.fromhex(CONTENT)]) == {bytes.fromhex(CONTENT): DATE}


def test_the_command_line_writes_and_reads(secure_stack: Stack) -> None:
    fact = {"id": "01" * 20, "date": "2005-04-07T22:13:13+00:00"}
    added = run(secure_stack, "provgate", "add", "contents", stdin=json.dumps(fact))
    assert added.returncode == 0, added.stderr
    got = run(secure_stack, "provgate", "get", "contents", "01" * 20)
    assert json.loads(got.stdout) == fact


def test_grpcurl_writes_and_reads(secure_stack: Stack, authorities: Authorities) -> None:
    shown = authorities.ours.issue("grpcurl")
    entry = json.dumps({"contents": [{"id": "AgICAgICAgICAgICAgICAgICAgI=", "date": "2005-04-07T22:13:13Z"}]})
    added = grpcurl(secure_stack, authorities.ours, shown, "-d", entry, secure_stack.address, f"{SERVICE}/ContentAdd")
    assert '"acked_count": "1"' in added.stdout, added.stderr
    ids = json.dumps({"ids": ["AgICAgICAgICAgICAgICAgICAgI="]})
    got = grpcurl(secure_stack, authorities.ours, shown, "-d", ids, secure_stack.address, f"{SERVICE}/ContentGet")
    assert '"date": "2005-04-07T22:13:13Z"' in got.stdout, got.stderr


def test_the_gateway_refuses_who_is_not_ours(secure_stack: Stack, authorities: Authorities) -> None:
    ours, stranger = authorities.ours, authorities.stranger
    refused: list[dict[str, Any]] = [
        {"tls_ca_file": str(ours.ca)},
        client_tls(ours, stranger.issue("client")),
        client_tls(stranger, ours.issue("adapter")),
    ]
    for tls in refused:
        with pytest.raises(GatewayUnavailableError):
            ProvenanceStorageGrpc(url=secure_stack.address, connect_timeout_s=1.0, **tls).open()
    for ca, shown in ((ours, None), (stranger, ours.issue("grpcurl"))):
        assert grpcurl(secure_stack, ca, shown, "-max-time", "5", secure_stack.address, "list").returncode != 0


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


def test_programs_say_why_the_broker_is_no_good(secure_stack: Stack, authorities: Authorities) -> None:
    settings = yaml.safe_load(Path(secure_stack.config).read_text("utf-8"))["provenance"]["rabbitmq"]
    password = settings["url"].split(":")[2].partition("@")[0]
    ours, stranger = authorities.ours, authorities.stranger
    nothing: dict[str, Any] = {"tls_cert_file": None, "tls_key_file": None}
    for overrides, expected in (
        (client_tls(stranger, ours.issue("programs")), "CERTIFICATE_VERIFY_FAILED"),
        (client_tls(ours, stranger.issue("programs")), "ALERT_UNKNOWN_CA"),
        (nothing, "ALERT_CERTIFICATE_REQUIRED"),
    ):
        assert password not in log_of_workers(secure_stack, expected, **overrides)


def test_programs_say_why_the_database_is_no_good(secure_stack: Stack, authorities: Authorities) -> None:
    storage_config = yaml.safe_load(Path(secure_stack.config).read_text("utf-8"))["provenance"]["rabbitmq"]
    dsn = storage_config["storage_config"]["db"]
    stranger = str(authorities.stranger.issue("provgate").both)
    for changes, expected in (
        ({"sslrootcert": str(authorities.stranger.ca)}, "certificate verify failed"),
        ({"sslcert": stranger, "sslkey": stranger}, "unknown ca"),
        ({"sslcert": "/none", "sslkey": "/none"}, "certificate"),
    ):
        db = make_dsn(dsn, **changes)
        log = log_of_workers(secure_stack, expected, storage_config={"cls": "postgresql", "db": db})
        assert parse_dsn(dsn)["password"] not in log
