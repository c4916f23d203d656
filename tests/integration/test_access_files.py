"""The files and commands of docs/operations.md by which callers are known: they work as they stand there.

Of them the test replaces the directory, the host and the port, and the broker and database behind the gateway.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from provgate_stack.processes.process import ChildProgram, free_ports
from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack
from tests.support.fix_servers import CLONE

PAGE = (CLONE / "docs" / "operations.md").read_text(encoding="utf-8")
CONTENT = '{"id": "ce013625030ba8dba906f756967f9e9ca394464a"}'


class Deployment:
    """A gateway and its clients by the page, in a directory in the place of /etc/provgate."""

    def __init__(self, directory: Path, stack: Stack) -> None:
        self.directory = directory
        self.port = free_ports(1)[0]
        self.environment = stack.client_environment()
        self.environment["PATH"] = f"{Path(program_path('provgate')).parent}:{self.environment['PATH']}"
        self.rabbitmq = yaml.safe_load(stack.config.read_text(encoding="utf-8"))["provenance"]["rabbitmq"]

    def block(self, marker: str) -> str:
        found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
        assert found is not None, marker
        replaced = found[1].replace("/etc/provgate", str(self.directory)).replace("gateway.example", "localhost")
        return replaced.replace("0.0.0.0:50051", f"127.0.0.1:{self.port}").replace(":50051", f":{self.port}")

    def enter(self, marker: str) -> None:
        lines = "\n".join(line.removeprefix("# ") for line in self.block(marker).splitlines())
        entered = subprocess.run(
            ["bash", "-e", "-c", lines], env=self.environment, capture_output=True, text=True, check=False
        )
        assert entered.returncode == 0, entered.stderr

    def start(self, marker: str) -> ChildProgram:
        document = yaml.safe_load(self.block(marker))
        document["provenance"]["rabbitmq"] = self.rabbitmq
        document["provenance"]["gateway"]["metrics_listen"] = "off"
        path = self.directory / "gateway.yml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        program = ChildProgram(
            [program_path("provgate-gateway"), "--config", str(path), "--ready-file", str(ready)],
            self.environment,
            self.directory / "gateway.log",
        )
        program.start()
        program.wait_until(ready.exists, 60)
        return program

    def add(self, client: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Adds a content by the configuration of a client, `without` some of its settings."""
        document = yaml.safe_load(client)
        for name in without:
            del document["provenance"]["storage"][name]
        path = self.directory / "client.yml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return subprocess.run(
            [program_path("provgate"), "--connect-timeout-s", "5", "--retry-time-s", "1", "add", "contents"],
            env=self.environment | {"PROVGATE_CONFIG": str(path)},
            input=CONTENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def deployment(tmp_path: Path, shared_stack: Stack) -> Deployment:
    made = Deployment(tmp_path, shared_stack)
    made.enter("authority")
    return made


def test_tokens_alone(deployment: Deployment) -> None:
    deployment.enter("tokens")
    gateway = deployment.start("token-gateway")
    try:
        client = deployment.block("token-client")
        added = deployment.add(client)
        assert added.returncode == 0, added.stderr
        refused = deployment.add(client, without=("token_file",))
        assert refused.returncode == 1
        assert "the call has no token and no client certificate of a known name" in refused.stderr
    finally:
        assert gateway.terminate() == 0


def test_certificates(deployment: Deployment) -> None:
    deployment.enter("certificates")
    gateway = deployment.start("certificate-gateway")
    try:
        client = deployment.block("certificate-client")
        added = deployment.add(client)
        assert added.returncode == 0, added.stderr
        refused = deployment.add(client, without=("tls_cert_file", "tls_key_file"))
        assert refused.returncode == 1
        assert "no gateway answers" in refused.stderr
    finally:
        assert gateway.terminate() == 0


def test_a_token_does_not_do_for_the_certificate_that_tls_asks_for(deployment: Deployment) -> None:
    deployment.enter("tokens")
    deployment.enter("certificates")
    gateway = deployment.start("certificate-gateway")
    try:
        refused = deployment.add(deployment.block("token-client"))
        assert refused.returncode == 1
        assert "no gateway answers" in refused.stderr
    finally:
        assert gateway.terminate() == 0


def test_units_are_enabled_after_configuration_and_set_up() -> None:
    places = [
        PAGE.index(text) for text in ("/etc/provgate/workers.yml`", "provgate-workers setup\n", "systemctl enable")
    ]
    assert places == sorted(places)
