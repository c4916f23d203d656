"""Programs that must refuse to start: what they say, and their exit code."""

from __future__ import annotations

import re
from pathlib import Path

from provgate_stack.processes.process import free_ports
from provgate_stack.stack import Stack
from tests.support.programs import failed_start, run_workers


def check_gateway_refuses(stack: Stack, said: str) -> None:
    """Checks that a gateway refuses to start, and takes no call."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    code, log = failed_start(stack, listen=address)
    assert code == 1
    assert re.search(said, log), log
    assert "gateway.serve" not in log


def check_workers_refuse(config: Path, said: str, commands: tuple[str, ...] = ("run",)) -> None:
    for command in commands:
        ended = run_workers(config, command)
        assert ended.returncode == 1
        assert re.search(said, ended.stderr), ended.stderr
        assert "Traceback" not in ended.stderr
