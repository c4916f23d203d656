"""What the system refuses: packages that become dead letters, and programs that refuse to start."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from provgate_broker.dead_letters.messages import (
    EXCHANGE_HEADER,
    MESSAGE_HEADER,
    REASON_HEADER,
    REDELIVERED_HEADER,
    ROUTING_KEY_HEADER,
    TIME_HEADER,
)
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_client.errors import InvalidRequestError
from provgate_stack.processes.process import LOOPBACK, free_ports
from provgate_stack.stack import Stack
from tests.faults.system import RECOVERED_S, System
from tests.support.entries import encode_package
from tests.support.packages import DATE, AmqpSender, content_queue
from tests.support.programs import failed_start, run_workers

# Of one range, so that good and bad packages wait in one queue and are stored together.
FIRST_BYTE: Final = 0x21


def check_dead_letters(system: System, bodies: list[bytes], reason: str, redelivered_counts: set[int]) -> None:
    """Takes the dead letters out, and checks that they are these bodies, each once, and no others."""
    left = list(bodies)
    with AmqpSender(system.url) as sender:
        while left:
            properties, body = sender.take(DEAD_LETTER_QUEUE)
            left.remove(body)
            headers: dict[str, Any] = dict(properties.headers or {})
            assert headers[REASON_HEADER] == reason
            assert headers[EXCHANGE_HEADER] == "content"
            assert headers[ROUTING_KEY_HEADER] == content_queue(bytes([FIRST_BYTE]))
            assert headers[MESSAGE_HEADER]
            assert headers[REDELIVERED_HEADER] in redelivered_counts
            assert abs((datetime.now(UTC) - datetime.fromisoformat(headers[TIME_HEADER])).total_seconds()) < 120
    system.check_nothing_set_aside()


def check_one_refused(system: System, refused: bytes, good: list[bytes]) -> None:
    """Writes contents of which the database refuses one, and checks that only its caller is told so."""
    with system.writing() as writing:
        begun = [writing.begin("content_add", dict.fromkeys(good[n::10], DATE)) for n in range(5)]
        bad = writing.begin("content_add", {refused: DATE})
        begun += [writing.begin("content_add", dict.fromkeys(good[n::10], DATE)) for n in range(5, 10)]
        error = bad.exception(RECOVERED_S)
        assert all(each.result(RECOVERED_S) for each in begun)
    assert isinstance(error, InvalidRequestError)
    assert error.status.reason == "PACKAGE_REFUSED"
    assert error.status.metadata["worker_reason"] == "refused"
    system.check()
    assert system.stored_count([refused, *good]) == len(good)
    check_dead_letters(system, [encode_package([(refused, DATE)])], "refused", {0})


def check_gateway_refuses(stack: Stack, said: str) -> None:
    """Checks that a gateway refuses to start, says why, and takes no call."""
    code, log = failed_start(stack, listen=f"{LOOPBACK}:{free_ports(1)[0]}")
    assert code == 1
    assert re.search(said, log), log
    assert "gateway.serve" not in log


def check_workers_refuse(config: Path, said: str, commands: tuple[str, ...] = ("run",)) -> None:
    """Checks that commands of the workers, side by side, refuse to start, and say why."""
    with ThreadPoolExecutor() as threads:
        for ended in threads.map(lambda command: run_workers(config, command), commands):
            assert ended.returncode == 1
            assert re.search(said, ended.stderr), ended.stderr
            assert "Traceback" not in ended.stderr
