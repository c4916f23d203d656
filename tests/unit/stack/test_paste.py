from __future__ import annotations

import base64
from pathlib import Path

from provgate_stack.demo import lines_to_paste


def test_lines_hold_the_address_and_the_id_in_both_forms() -> None:
    content_id = bytes(range(20))
    lines = lines_to_paste("127.0.0.1:1234", Path("/a b/repo"), content_id.hex())
    assert lines.count("127.0.0.1:1234") == 3
    assert base64.b64encode(content_id).decode() in lines
    assert content_id.hex() in lines
    assert "provgate index '/a b/repo'\n" in lines
