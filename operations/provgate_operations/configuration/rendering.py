"""Settings in force, written down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import yaml

from provgate_operations.configuration.effective import Place, Setting


def as_yaml(settings: Sequence[Setting]) -> str:
    """Returns settings as a configuration file, with the source of each value behind it."""
    return "".join(f"{line}\n" for line in _lines(settings))


def as_json(settings: Sequence[Setting]) -> str:
    """Returns settings as a JSON object, for programs: `settings` is a list with path, value and source of each."""
    told = [
        {
            "path": ".".join(setting.place),
            "value": setting.value,
            "source": setting.source.kind,
            "name": setting.source.name,
            "named_by": setting.source.named_by,
        }
        for setting in settings
    ]
    return msgspec.json.format(msgspec.json.encode({"settings": told}), indent=2).decode() + "\n"


def scalar(value: Any) -> str:
    """Returns a value as it stands behind a key, on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _lines(settings: Sequence[Setting]) -> Iterator[str]:
    opened: Place = ()
    for setting in settings:
        *parents, name = setting.place
        shared = _shared_count(opened, parents)
        for depth in range(shared, len(parents)):
            yield f"{'  ' * depth}{_key(parents[depth])}:"
        opened = tuple(parents)
        source = _on_one_line(str(setting.source))
        yield f"{'  ' * len(parents)}{_key(name)}: {scalar(setting.value)}  # {source}"


def _shared_count(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def _key(name: str) -> str:
    return scalar(name)


def _on_one_line(text: str) -> str:
    # It names files, whose names may be anything.
    return text if text.isprintable() else json.dumps(text)
