"""A client that a test can kill: `python -m tests.faults.client_program ADDRESS SEED CALLS`.

It writes groups of contents, so many calls at once and without end, and prints the number of each group once it is
acked. The groups follow from the seed, so that the test knows them too.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from provgate_client.storage import ProvenanceStorageGrpc

_GROUP_SIZE: Final = 3_000
_CLONE: Final = Path(__file__).resolve().parent.parent.parent


def group(seed: int, number: int) -> list[bytes]:
    """Returns the contents of a group."""
    draw = random.Random(f"{seed} {number}")
    return [draw.randbytes(20) for _ in range(_GROUP_SIZE)]


@contextmanager
def running_client(address: str, seed: int, call_count: int) -> Iterator[subprocess.Popen[str]]:
    """Starts the program; at the end it is gone."""
    command = [sys.executable, "-m", "tests.faults.client_program", address, str(seed), str(call_count)]
    with subprocess.Popen(command, cwd=_CLONE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def main(address: str, seed: int, call_count: int) -> None:
    numbers = count()
    with ProvenanceStorageGrpc(url=address, message_entries=200) as storage:

        def write() -> None:
            for number in numbers:
                _tell("begun", number)
                if storage.content_add(group(seed, number)):
                    _tell("acked", number)

        threads = [threading.Thread(target=write) for _ in range(call_count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _tell(what: str, number: int) -> None:
    # In one go: the lines of two threads must not mix.
    sys.stdout.write(f"{what} {number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
