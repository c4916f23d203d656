"""The table of failures in docs/architecture.md names tests that exist, for each row."""

from __future__ import annotations

import re
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]


def _rows() -> list[str]:
    text = (CLONE / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## When parts fail")[2]
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def test_each_row_names_tests_that_exist() -> None:
    assert len(_rows()) > 20
    for row in _rows():
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, f"no test: {row}"
        for file, test in named:
            path = CLONE / (file if "/" in file else f"tests/faults/{file}")
            assert f"def {test}(" in path.read_text(encoding="utf-8"), f"{file} has no {test}"
