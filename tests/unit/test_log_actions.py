"""Every record has an action, and docs/logs.md says which there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_import_directions import CLONE, modules

LEVELS = ("debug", "info", "warning", "error", "critical", "exception", "log")

# What logs with the action that it was made with.
MADE_WITH_ACTION = ("Outage",)


def is_log_call(node: ast.AST) -> bool:
    """Whether a node calls `logger.<level>` or `self._logger.<level>`, or logs past any logger."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in LEVELS:
        return False
    owner = node.func.value
    if isinstance(owner, ast.Call):
        owner = owner.func
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    return name.lower().endswith(("logger", "logging"))


def fields_of(call: ast.Call, tree: ast.AST) -> ast.Dict | None:
    """Returns what a call has as `extra`, written there or in an assignment before it."""
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    if isinstance(extra, ast.Name):
        assigned = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and node.lineno < call.lineno
            and any(isinstance(target, ast.Name) and target.id == extra.id for target in node.targets)
        ]
        extra = assigned[-1] if assigned else None
    return extra if isinstance(extra, ast.Dict) else None


def action_of(call: ast.Call, tree: ast.AST) -> ast.expr | None:
    fields = fields_of(call, tree)
    if fields is None:
        return None
    named = zip(fields.keys, fields.values, strict=True)
    return next((value for key, value in named if isinstance(key, ast.Constant) and key.value == "action"), None)


def calls_without_action(tree: ast.AST) -> list[int]:
    """Returns the lines of a module's log calls that have no action."""
    calls = [node for node in ast.walk(tree) if is_log_call(node)]
    return [call.lineno for call in calls if isinstance(call, ast.Call) and action_of(call, tree) is None]


def actions_in(tree: ast.AST) -> Iterator[str]:
    """Yields the actions that a module names."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        action = action_of(node, tree) if is_log_call(node) else None
        if isinstance(node.func, ast.Name) and node.func.id in MADE_WITH_ACTION:
            action = next((keyword.value for keyword in node.keywords if keyword.arg == "action"), None)
        if isinstance(action, ast.Constant):
            yield str(action.value)


def parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_log_call_has_an_action() -> None:
    found = {path: calls_without_action(parsed(path)) for path in modules()}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "logger.info('a')",
        "logger.exception('a', extra={'reason': 'b'})",
        "self._logger.warning('a')",
        "logging.error('a')",
        "logging.getLogger(__name__).info('a')",
        "logger.info('a', extra=extra)",
        "extra = {'reason': 'b'}\nlogger.info('a', extra=extra)",
    ],
)
def test_one_without_is_found(source: str) -> None:
    found = calls_without_action(ast.parse(source))
    assert len(found) == 1


def test_the_page_lists_the_actions_that_there_are() -> None:
    used = {action for path in modules() for action in actions_in(parsed(path))}
    page = (CLONE / "docs" / "logs.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", page, re.MULTILINE)
    assert sorted(used) == sorted(listed)
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+", action) for action in used)
