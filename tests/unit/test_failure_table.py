"""The table of failures in docs/architecture.md names tests that exist, for each row, and says which are long."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
LONG = "pytest.mark.long"


def _rows() -> list[str]:
    text = (CLONE / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## When parts fail")[2]
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def _is_long(node: ast.stmt) -> bool:
    marks = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    return any(ast.unparse(mark) == LONG for mark in marks)


@cache
def _tests(file: Path) -> dict[str, bool]:
    """The tests of a file, and whether each is long: `make test`, and with it .ci/run, leaves those out."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    marks = [node.value for node in module.body if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node)]
    all_long = any(LONG in ast.unparse(mark) for mark in marks)
    found: dict[str, bool] = {}
    for node in module.body:
        for each in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(each, ast.FunctionDef) and each.name.startswith("test_"):
                found[each.name] = all_long or _is_long(each) or _is_long(node)
    return found


def test_each_row_names_tests_that_exist_and_says_which_are_long() -> None:
    assert len(_rows()) > 20
    for row in _rows():
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`( \(long\))?", row)
        assert named, f"no test: {row}"
        assert len(named) == row.count("::")
        for file, test, long in named:
            (path,) = [CLONE / file] if "/" in file else (CLONE / "tests" / "faults").rglob(file)
            tests = _tests(path)
            assert test in tests, f"{file} has no {test}"
            assert tests[test] is bool(long), f"{file}::{test}: the table and its mark `long` say different things"


def test_ci_runs_all_but_the_long_ones() -> None:
    target = re.search(r"^test:.*\n((?:\t.*\n)+)", (CLONE / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert target is not None
    assert re.search(r'\$\(BIN\)/pytest -m "not long" (--\S+( \S+)? )*\$\(TESTS\)$', target[1], re.MULTILINE)
    assert re.search(r"^exec make .*\btest$", (CLONE / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
