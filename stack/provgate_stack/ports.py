"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from typing import Final

from provgate_stack.errors import StackError

LOOPBACK: Final = "127.0.0.1"

# Below the ports that the kernel hands out to clients (from 32768), so that no outgoing connection takes a server's
# port while that server is being restarted, and clear of the standard ports of any server in question.
_CANDIDATES: Final = range(20_000, 32_000)
_ATTEMPTS: Final = 1_000


def free_ports(count: int) -> list[int]:
    """Returns `count` different ports that nothing listens on.

    They are chosen at random, so that stacks that start at the same moment do not choose the same.

    Raises:
        StackError: no free port was found.
    """
    ports: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_CANDIDATES, _ATTEMPTS):
            if len(ports) == count:
                return ports
            if _hold(port, held):
                ports.append(port)
    raise StackError(f"{count} free ports between {_CANDIDATES.start} and {_CANDIDATES.stop} were not found")


def free_port(preferred: int) -> int:
    """Returns `preferred` if nothing listens on it, else another free port."""
    with ExitStack() as held:
        if _hold(preferred, held):
            return preferred
    return free_ports(1)[0]


def _hold(port: int, held: ExitStack) -> bool:
    candidate = held.enter_context(socket.socket())
    # As servers do: a port of a server that has just ended (TIME_WAIT) counts as free.
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind((LOOPBACK, port))
    except OSError:
        return False
    return True
