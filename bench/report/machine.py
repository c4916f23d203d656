"""The machine, and the versions of everything that is measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from provgate_stack.servers.installed import postgresql_programs, rabbitmq_programs

_CLONE: Final = Path(__file__).resolve().parents[2]
_LIBRARIES: Final = ("grpcio", "protobuf", "pika", "msgpack", "psycopg2-binary", "pymongo", "secantusdb")


def describe() -> dict[str, str]:
    """Returns the date, the machine, and the versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "provgate": _output("git", "-c", "safe.directory=*", "-C", str(_CLONE), "describe", "--always", "--dirty"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_cpu_model()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": _output(str(postgresql_programs() / "postgres"), "--version").split()[-1],
        "rabbitmq": _output(str(rabbitmq_programs() / "rabbitmqctl"), "version"),
        "settings": "defaults of the servers but autovacuum = off; fsync on, quorum queues, confirms on",
    } | {library: version(library) for library in _LIBRARIES}


def _output(*command: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
