"""Fuzzing of the codec: every body decodes to entries or raises `MalformedPackageError`.

The bodies are packages and replies, most of them of existing deployments, that are damaged. FUZZ_SECONDS says for how
long (20 by default), FUZZ_SEED repeats a run. A body that fails is printed, and kept where hypothesis finds it:
`test_a_damaged_package` alone then tries it again and makes it small.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provgate_broker.errors import MalformedPackageError
from provgate_broker.topology.policy import OPERATIONS, Operation, parse_binding_key
from provgate_broker.wire.package import Nack, claimed_row_count, decode_reply, encode_reply
from tests.support.entries import decode_entries, encode_package

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS") or 20)
SEED: Final = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(10**9))

# Choices enough for every body that is drawn.
BUFFER_BYTES: Final = 512
BUFFERS_KEPT_COUNT: Final = 2_000

# Headers of msgpack: each family of types, with lengths that lie, and the extension of dates.
HEADERS: Final = [
    *(bytes([first]) for first in b"\x00\x7f\x80\x81\x8f\x90\x91\x9f\xa0\xbf\xc0\xc1\xc2\xe0"),
    *(bytes([first]) + b"\xff" * 4 for first in b"\xc4\xc5\xc6\xc7\xc8\xc9\xd9\xda\xdb\xdc\xdd\xdf"),
    b"\xd6\xff" + b"\xff" * 4,
    b"\xd7\xff" + b"\xff" * 8,
    b"\xc7\x0c\xff" + b"\x7f" * 12,
    b"\xd4\x05\x00",
    b"\xc4\x14" + b"i" * 20,
    b"\xcf" + b"\xff" * 8,
    b"\xcb" + b"\x7f" * 8,
]

VECTORS: Final = json.loads((Path(__file__).parents[1] / "data" / "wire_vectors.json").read_text())["vectors"]
ORIGINALS: Final = [
    *((parse_binding_key(vector["routing_key"])[0], bytes.fromhex(vector["body_hex"])) for vector in VECTORS),
    (OPERATIONS[0], encode_reply(Nack("malformed", "not a package", 3))),
]


@st.composite
def damaged_packages(draw: st.DrawFn) -> tuple[Operation, bytes]:
    """Draws an operation and a body with some bytes replaced, left out, doubled or mixed with those of another body.

    The operation is mostly that of the body.
    """
    operation, body = draw(st.sampled_from(ORIGINALS))
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 24)))
        body = body[:start] + draw(replacements(body[start:end])) + body[end:]
    if draw(st.integers(0, 3)) == 0:
        operation = draw(st.sampled_from(OPERATIONS))
    return operation, body


def replacements(piece: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.just(b""),
        st.just(piece * 2),
        st.sampled_from(HEADERS),
        st.sampled_from(HEADERS).map(lambda header: header + piece[len(header) :]),
        st.binary(max_size=len(piece) + 1),
        st.sampled_from([body for _, body in ORIGINALS]),
    )


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


@pytest.mark.long
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
