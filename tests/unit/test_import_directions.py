"""Which package may import which, where a library may be imported, and that test suites share tests/support alone."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parent.parent.parent

# Each package: where it is, and which of the others it may import.
PACKAGES = {
    "provgate": ("protos", ()),
    "provgate_runtime": ("runtime", ()),
    "provgate_storage": ("storage", ("provgate_runtime",)),
    "provgate_broker": ("broker", ("provgate_runtime", "provgate_storage")),
    "provgate_workers": ("workers", ("provgate_runtime", "provgate_storage", "provgate_broker")),
    "provgate_gateway": (
        "gateway",
        ("provgate", "provgate_runtime", "provgate_storage", "provgate_broker"),
    ),
    "provgate_client": ("clients", ("provgate", "provgate_runtime", "provgate_storage")),
    "provgate_operations": (
        "operations",
        (
            "provgate",
            "provgate_runtime",
            "provgate_storage",
            "provgate_broker",
            "provgate_workers",
            "provgate_gateway",
            "provgate_client",
        ),
    ),
}

# The modules of provgate_storage that a package may import, where it may not import all.
STORAGE_MODULES = {
    "provgate_broker": ("model", "rows", "errors"),
    "provgate_client": ("interface", "model", "rows", "errors"),
}

# Each library: the folders below which it may be imported. What is not listed may be imported anywhere.
LIBRARIES = {
    "grpc": ("protos", "gateway", "clients", "operations"),
    "grpc_status": ("gateway", "clients"),
    "grpc_health": ("gateway", "operations"),
    "grpc_reflection": ("gateway",),
    "google": ("protos", "gateway", "clients"),
    "pika": ("broker",),
    "msgpack": ("broker",),
    "psycopg2": ("storage/provgate_storage/postgresql",),
    "pymongo": ("storage/provgate_storage/mongodb",),
    "bson": ("storage/provgate_storage/mongodb",),
    "pygit2": ("clients/provgate_client/git",),
    "dulwich": ("clients/provgate_client/git",),
    "rich": ("clients", "operations"),
    "prometheus_client": ("runtime", "gateway", "workers", "operations"),
    "statsd": ("runtime",),
    "pythonjsonlogger": ("runtime",),
    "cryptography": ("runtime",),
    "psutil": (),
    "provgate_stack": (),
}


def imports_of(source: str) -> set[str]:
    """Returns the full names of all that a module imports, wherever in it: of `from a import b`, `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def modules() -> Iterator[Path]:
    for package, (folder, _) in PACKAGES.items():
        yield from sorted((CLONE / folder / package).rglob("*.py"))


def breaches(path: Path, names: set[str]) -> list[str]:
    """Returns what a module may not import of the given names. `path` is relative to the clone."""
    package = path.parts[1]
    return [
        name
        for name in sorted(names)
        if foreign_package(package, name) or foreign_library(path, name) or foreign_storage_module(package, name)
    ]


def foreign_package(package: str, name: str) -> bool:
    top = name.partition(".")[0]
    return top in PACKAGES and top != package and top not in PACKAGES[package][1]


def foreign_library(path: Path, name: str) -> bool:
    top = name.partition(".")[0]
    return top in LIBRARIES and not any(path.is_relative_to(folder) for folder in LIBRARIES[top])


def foreign_storage_module(package: str, name: str) -> bool:
    parts = name.split(".")
    if package not in STORAGE_MODULES or parts[0] != "provgate_storage" or len(parts) == 1:
        return False
    folder = CLONE / "storage" / "provgate_storage"
    is_module = (folder / f"{parts[1]}.py").exists() or (folder / parts[1]).is_dir()
    return is_module and parts[1] not in STORAGE_MODULES[package]


def test_modules_import_only_what_their_package_may() -> None:
    found = {
        path: breaches(path.relative_to(CLONE), imports_of(path.read_text(encoding="utf-8"))) for path in modules()
    }
    assert len(found) > 100
    assert {path: names for path, names in found.items() if names} == {}


def test_a_test_suite_imports_tests_support_alone_of_other_suites() -> None:
    tests = CLONE / "tests"
    for path in sorted(tests.rglob("*.py")):
        suite = path.relative_to(tests).parts[0]
        names = {name for name in imports_of(path.read_text(encoding="utf-8")) if name.startswith("tests.")}
        assert {name.split(".")[1] for name in names} <= {suite, "support"}, path


def test_packages_are_all_that_the_wheel_holds() -> None:
    project = tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packaged) == {f"{folder}/{package}" for package, (folder, _) in PACKAGES.items()}


@pytest.mark.parametrize(
    ("path", "source", "breach"),
    [
        ("gateway/provgate_gateway/a.py", "import pika", "pika"),
        ("gateway/provgate_gateway/a.py", "def f():\n    from provgate_workers.run import x", "provgate_workers.run"),
        ("workers/provgate_workers/a.py", "import grpc.aio", "grpc.aio"),
        ("clients/provgate_client/a.py", "from provgate_storage import registry", "provgate_storage.registry"),
        ("clients/provgate_client/a.py", "from provgate_storage.postgresql import x", "provgate_storage.postgresql"),
        ("storage/provgate_storage/a.py", "import psycopg2.extras", "psycopg2.extras"),
    ],
)
def test_breach_is_seen(path: str, source: str, breach: str) -> None:
    assert breach in breaches(Path(path), imports_of(source))
