"""Bodies that were once packages or replies, most of them of existing deployments, damaged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from provgate_broker.topology.policy import OPERATIONS, Operation, parse_binding_key
from provgate_broker.wire.package import Nack, encode_reply

_VECTORS: Final = json.loads((Path(__file__).parents[1] / "data" / "wire_vectors.json").read_text())["vectors"]

# Headers of msgpack: each family of types, with lengths that lie, and the extension of dates.
_HEADERS: Final = [
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


@dataclass(frozen=True)
class Original:
    """A body, and the operation that it was for."""

    operation: Operation
    body: bytes


ORIGINALS: Final = [
    *(Original(parse_binding_key(vector["routing_key"])[0], bytes.fromhex(vector["body_hex"])) for vector in _VECTORS),
    Original(OPERATIONS[0], encode_reply(Nack("malformed", "not a package", 3))),
]


@st.composite
def damaged_packages(draw: st.DrawFn) -> tuple[Operation, bytes]:
    """Draws a body with some of its bytes replaced, left out, doubled or mixed with another's, and an operation.

    The operation is mostly that of the body.
    """
    original = draw(st.sampled_from(ORIGINALS))
    body = original.body
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 24)))
        body = body[:start] + draw(_in_the_place_of(body[start:end])) + body[end:]
    operation = draw(st.sampled_from(OPERATIONS)) if draw(st.integers(0, 3)) == 0 else original.operation
    return operation, body


def _in_the_place_of(piece: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.just(b""),
        st.just(piece * 2),
        st.sampled_from(_HEADERS),
        st.sampled_from(_HEADERS).map(lambda header: header + piece[len(header) :]),
        st.binary(max_size=len(piece) + 1),
        st.sampled_from(ORIGINALS).map(lambda other: other.body),
    )
