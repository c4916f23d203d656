"""Reads the watch port of programs: health, readiness and metrics."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.polling import eventually


@dataclass(frozen=True)
class Probe:
    """The answer of /healthz or /readyz.

    Attributes:
        ok: whether the status is 200.
        problems: by the name of the condition; None if it holds.
    """

    ok: bool
    problems: dict[str, str | None]


def probe(address: str, path: str) -> Probe:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    document = json.loads(body)
    assert document["ok"] == (status == 200)
    assert all(each["ok"] == (each["problem"] is None) for each in document["conditions"])
    return Probe(document["ok"], {each["name"]: each["problem"] for each in document["conditions"]})


def samples(address: str) -> list[Sample]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(address: str, name: str, **labels: str) -> float:
    """Returns the sum of the samples that have a name and at least these labels."""
    wanted = labels.items()
    return sum(each.value for each in samples(address) if each.name == name and each.labels.items() >= wanted)


def expect(address: str, expected: float, name: str, **labels: str) -> None:
    """Returns once `value` is as expected."""
    eventually(lambda: value(address, name, **labels) == expected, f"{name} {labels} is {expected}")
