"""Fuzzing of the codec: whatever bytes come, they are entries or a `MalformedPackageError`.

FUZZ_SECONDS says for how long (20 by default), FUZZ_SEED repeats a run. A body that fails is printed, and kept where
hypothesis finds it: `test_a_damaged_package` alone then tries it again and makes it small.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
from typing import Final

import pytest
from hypothesis import given, settings

from provgate_broker.errors import MalformedPackageError
from provgate_broker.topology.policy import Operation
from provgate_broker.wire.package import claimed_row_count, decode_reply, encode_reply
from tests.fuzz.damage import damaged_packages
from tests.support.entries import decode_entries, encode_package

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS") or 20)
SEED: Final = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(10**9))

# Choices enough for every body that is drawn.
BUFFER_BYTES: Final = 512
BUFFERS_KEPT_COUNT: Final = 2_000


@settings(deadline=None)
@given(damaged_packages())
def test_a_damaged_package(package: tuple[Operation, bytes]) -> None:
    operation, body = package
    assert 0 <= claimed_row_count(body) <= len(body)
    check_reply(body)
    try:
        entries = decode_entries(body, operation)
    except MalformedPackageError:
        return
    assert len(entries) == claimed_row_count(body)
    assert decode_entries(encode_package(entries), operation) == entries


def check_reply(body: bytes) -> None:
    try:
        reply = decode_reply(body)
    except MalformedPackageError:
        return
    assert decode_reply(encode_reply(reply)) == reply


@pytest.mark.timeout(SECONDS + 60)
def test_damaged_packages_for_some_time() -> None:
    sys.stdout.write(f"FUZZ_SECONDS={SECONDS:g} FUZZ_SEED={SEED}\n")
    drawn = random.Random(SEED)
    fuzz_one_input = test_a_damaged_package.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    buffers: list[bytes] = []
    tried_count = 0
    end_s = time.monotonic() + SECONDS
    while time.monotonic() < end_s:
        known = drawn.choice(buffers) if buffers and drawn.random() < 0.5 else b""
        used = fuzz_one_input(changed(drawn, known) if known else drawn.randbytes(BUFFER_BYTES))
        tried_count += 1
        if used is not None and len(buffers) < BUFFERS_KEPT_COUNT:
            buffers.append(used)
    sys.stdout.write(f"{tried_count} bodies\n")
    assert tried_count > SECONDS


def changed(drawn: random.Random, buffer: bytes) -> bytes:
    """Returns a buffer that draws nearly the same."""
    start = drawn.randrange(len(buffer) + 1)
    return buffer[:start] + drawn.randbytes(drawn.randint(1, 8)) + buffer[start + drawn.randint(0, 8) :]
