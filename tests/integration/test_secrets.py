"""Programs that cannot start, or wait for what they need, tell no secret: not in a log, an error or a process list."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from psycopg2.extensions import parse_dsn

from provgate_stack.processes.process import LOOPBACK, free_ports
from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack
from tests.support.polling import eventually

# In every secret of these tests; what has to be quoted in a URL is in some.
HUSH = "hush"
AMQP_SECRET, DB_SECRET, TOKEN = "hush-amqp/1@", "hush db'2\\", "hush-token-3"
QUOTED_AMQP_SECRET, QUOTED_DB_SECRET = "hush-amqp%2F1%40", "hush%20db%272%5C"

RUNNING = (
    ["provgate-gateway"],
    ["provgate-workers", "run"],
    ["provgate-workers", "setup"],
)
ENDING = (["provgate-workers", "dlq", "list"], ["provgate", "get", "contents", "00" * 20])
START_S = 120.0


class Attempt:
    """A program that is started with debug logs, and everything that it lets others see."""

    def __init__(
        self, tmp_path: Path, command: list[str], sections: Mapping[str, Any], suffix: str = "", **environment: str
    ) -> None:
        name = "-".join(command) + suffix
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump({"provenance": dict(sections)}), encoding="utf-8")
        self._output = tmp_path / f"{name}.output"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROVGATE_")}
        self._seen = ""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [program_path(command[0]), *command[1:]],
                env=inherited | {"PROVGATE_CONFIG": str(config), "PROVGATE_LOG_LEVEL": "debug"} | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def is_over(self, until: str) -> bool:
        """Looks at its processes; returns whether it has ended, or written what `until` matches."""
        self._look_at_processes()
        return self._process.poll() is not None or re.search(until, self._text()) is not None

    def end(self, until: str) -> str:
        """Ends it, and returns what it told. It must have written what `until` matches."""
        self._process.terminate()
        self._process.wait(30)
        assert re.search(until, self._text()), f"it did not say {until}: {self._text()}"
        return self._seen + self._text()

    def _text(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def _look_at_processes(self) -> None:
        try:
            program = psutil.Process(self._process.pid)
            for each in (program, *program.children(recursive=True)):
                self._seen += " ".join([each.name(), *each.cmdline()])
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return


@pytest.fixture
def closed() -> str:
    """An address at which nobody is."""
    (port,) = free_ports(1)
    return f"{LOOPBACK}:{port}"


def amqp(address: str) -> str:
    return f"amqp://provgate:{QUOTED_AMQP_SECRET}@{address}/%2f"


def sections(url: str, db: Any, cls: str = "postgresql") -> dict[str, Any]:
    return {"rabbitmq": {"url": url, "storage_config": {"cls": cls, "db": db}}}


def told(attempts: list[Attempt], until: str) -> list[str]:
    """Returns what programs told that run side by side, by the time that each has ended or written what matches."""
    eventually(lambda: sum(attempt.is_over(until) for attempt in attempts) == len(attempts), until, START_S)
    return [attempt.end(until) for attempt in attempts]


def check(texts: list[str]) -> None:
    for text in texts:
        assert HUSH not in text, text[max(0, text.index(HUSH) - 300) : text.index(HUSH) + 100]
        assert "Traceback" not in text


@pytest.mark.parametrize("form", ["string", "uri", "mapping", "file"])
def test_a_wrong_password_of_postgresql(tmp_path: Path, amqp_url: str, postgres_dsn: str, form: str) -> None:
    given = parse_dsn(postgres_dsn) | {"password": DB_SECRET}
    (tmp_path / "secret").write_text(DB_SECRET + "\n")
    where = f"{given['host']}:{given['port']}/{given['dbname']}"
    escaped = DB_SECRET.replace("\\", "\\\\").replace("'", "\\'")
    db: Any = {
        "string": " ".join(f"{name}='{value}'" for name, value in (given | {"password": escaped}).items()),
        "uri": f"postgresql://{given['user']}:{QUOTED_DB_SECRET}@{where}",
        "mapping": given,
        "file": {name: given[name] for name in given if name != "password"}
        | {"password_file": str(tmp_path / "secret")},
    }[form]
    attempts = [Attempt(tmp_path, command, sections(amqp_url, db)) for command in RUNNING]
    # A gateway asks the broker too, which has no queues yet.
    check(told(attempts, "password authentication failed"))


@pytest.mark.parametrize("form", ["setting", "file", "environment"])
def test_a_wrong_password_of_rabbitmq(tmp_path: Path, amqp_url: str, postgres_dsn: str, form: str) -> None:
    url = re.sub(r"//[^@]*@", f"//provgate:{QUOTED_AMQP_SECRET}@", amqp_url)
    given = sections(url, postgres_dsn)
    environment = {}
    if form != "setting":
        del given["rabbitmq"]["url"]
    if form == "file":
        (tmp_path / "secret").write_text(url + "\n")
        given["rabbitmq"]["url_file"] = str(tmp_path / "secret")
    if form == "environment":
        environment = {"PROVGATE_AMQP_URL": url}
    # A gateway would ask the database first, which has no schema yet.
    without_schema = {"rabbitmq": given["rabbitmq"] | {"topology": "existing"}}
    attempts = [
        Attempt(tmp_path, command, without_schema if command == ["provgate-gateway"] else given, **environment)
        for command in (*RUNNING, ENDING[0])
    ]
    texts = told(attempts, "ACCESS_REFUSED")
    check(texts)
    assert not any(parse_dsn(postgres_dsn)["password"] in text for text in texts)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobody_there(tmp_path: Path, closed: str, log_format: str) -> None:
    db = f"postgresql://provgate:{QUOTED_DB_SECRET}@{closed}/provenance"
    given = sections(amqp(closed), db) | {"storage": {"cls": "grpc", "url": closed, "connect_timeout_s": 0.5}}
    attempts = [Attempt(tmp_path, command, given, PROVGATE_LOG_FORMAT=log_format) for command in (*RUNNING, *ENDING)]
    check(told(attempts, "refused|no gateway answers"))


def test_nobody_there_of_mongodb(tmp_path: Path, closed: str) -> None:
    db = f"mongodb://provgate:{QUOTED_DB_SECRET}@{closed}/provenance?serverSelectionTimeoutMS=300"
    attempts = [Attempt(tmp_path, command, sections(amqp(closed), db, "mongodb")) for command in RUNNING]
    check(told(attempts, "MongoDB: "))


WRONG: list[dict[str, Any]] = [
    {"rabbitmq": {"url": amqp("localhost"), "nonsense": AMQP_SECRET}},
    {"rabbitmq": {"url": [AMQP_SECRET]}},
    {"rabbitmq": {"url": f"ampq://provgate:{QUOTED_AMQP_SECRET}@localhost/"}},
    {"rabbitmq": {"url": f"amqp://provgate:{QUOTED_AMQP_SECRET}@localhost:x/"}},
    {"rabbitmq": {"url": f"amqp://provgate:{AMQP_SECRET}@localhost:5672/"}},
    sections(amqp("localhost"), f"host=x password={DB_SECRET}"),
    sections(amqp("localhost"), {"host": "x", "pasword": DB_SECRET}),
    {"rabbitmq": {"storage_config": {"cls": "postgresql", "db": {"password": DB_SECRET}, "passwd": DB_SECRET}}},
    sections(amqp("localhost"), f"mongodb://provgate:{DB_SECRET}@localhost:x/", "mongodb"),
    sections(amqp("localhost"), {"host": "x", "pasword": DB_SECRET}, "mongodb"),
    {"rabbitmq": {"url": amqp("localhost"), "tls_ca_file": "/none"}},
    {"rabbitmq": {"url": amqp("localhost").replace("amqp:", "amqps:"), "tls_ca_file": "/none"}},
]


def several(tmp_path: Path, command: list[str], each_sections: list[dict[str, Any]]) -> list[Attempt]:
    """Starts a program once by each configuration."""
    return [Attempt(tmp_path, command, given, f"-{number}") for number, given in enumerate(each_sections)]


@pytest.mark.parametrize("command", RUNNING, ids=" ".join)
def test_a_configuration_that_is_wrong(tmp_path: Path, command: list[str]) -> None:
    check(told(several(tmp_path, command, WRONG), r"Error: provenance\.rabbitmq"))


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text(f"provenance: {{rabbitmq: {{url: {AMQP_SECRET}: [", encoding="utf-8")
    check(told([Attempt(tmp_path, command, {}, PROVGATE_CONFIG=str(config)) for command in RUNNING], "is not YAML"))


def test_a_wrong_option(tmp_path: Path, closed: str) -> None:
    given = sections(amqp(closed), {"host": "x", "password": DB_SECRET})
    check(told([Attempt(tmp_path, [*command, "--no-such-option"], given) for command in RUNNING], "No such option"))


def test_a_wrong_token(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"token": [TOKEN]},
        {"token": TOKEN, "nonsense": TOKEN},
        {"token_file": "/none"},
        {"url": f"http://user:{TOKEN}@localhost:x"},
    ]
    given = [{"storage": {"cls": "grpc", "url": "localhost:1", **each}} for each in wrong]
    check(told(several(tmp_path, ENDING[1], given), r"provenance\.storage"))


def test_programs_that_run_show_no_secret_in_their_processes(shared_stack: Stack) -> None:
    settings = yaml.safe_load(shared_stack.config.read_text("utf-8"))["provenance"]["rabbitmq"]
    passwords = [
        settings["url"].split(":")[2].partition("@")[0],
        parse_dsn(settings["storage_config"]["db"])["password"],
    ]
    process_count = 0
    for program in (shared_stack.workers[0], shared_stack.gateways[0]):
        process = psutil.Process(program.pid)
        for each in (process, *process.children(recursive=True)):
            process_count += 1
            assert not any(password in " ".join([each.name(), *each.cmdline()]) for password in passwords)
        assert not any(password in program.log_path.read_text("utf-8") for password in passwords)
    # The workers' own, two that host ranges, and the gateway.
    assert process_count >= 4
