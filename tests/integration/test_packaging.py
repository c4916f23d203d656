"""The distribution: what the wheel holds, and what an installation without and with extras can do."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parent.parent.parent

PACKAGES = (
    "provgate",
    "provgate_broker",
    "provgate_client",
    "provgate_runtime",
    "provgate_gateway",
    "provgate_operations",
    "provgate_storage",
    "provgate_workers",
)

IMPORT_EVERY_MODULE = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""

IMPORT_CLIENT = """
import provgate_client.adapter, provgate_client.cli.main, sys
from provgate_storage import get_provenance_storage
get_provenance_storage(cls="grpc", url="127.0.0.1:1")
print([name for name in ("pika", "msgpack", "psycopg2", "pymongo", "pygit2") if name in sys.modules])
"""

DISTRIBUTIONS = """
from importlib.metadata import distributions
print(*sorted({distribution.name.lower() for distribution in distributions()}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--outdir", str(out), str(CLONE)])
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel without extras."""
    return _installed(tmp_path_factory.mktemp("bare"), str(wheel))


@pytest.fixture(scope="module")
def full_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel with all extras."""
    return _installed(tmp_path_factory.mktemp("full"), f"{wheel}[all]")


def test_wheel_holds_stubs_and_type_markers(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    stubs = {"provenance_storage_pb2.pyi", "provenance_storage_pb2_grpc.pyi", "model_pb2.pyi", "errors_pb2.pyi"}
    assert {f"provgate/v1/{stub}" for stub in stubs} <= names


def test_wheel_holds_our_packages_alone(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_bare_installation_has_no_broker_library_and_no_driver(bare_python: Path) -> None:
    installed = set(_output(bare_python, DISTRIBUTIONS).split())
    assert "provgate" in installed
    assert installed.isdisjoint({"pika", "msgpack", "psycopg2", "psycopg2-binary", "pymongo", "pygit2"})


def test_bare_installation_has_the_client(bare_python: Path) -> None:
    assert _output(bare_python, IMPORT_CLIENT) == "[]\n"
    assert "Usage" in _run([str(bare_python.parent / "provgate"), "--help"])


@pytest.mark.parametrize("extra", ["gateway", "workers"])
def test_bare_installation_says_what_a_program_needs(bare_python: Path, extra: str) -> None:
    program = bare_python.parent / f"provgate-{extra}"
    done = subprocess.run([program, "--help"], cwd="/", capture_output=True, text=True, check=False)
    needed = rf"Error: provgate-{extra} needs \w+, which is not installed: pip install 'provgate\[{extra}\]'\n"
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(needed, done.stderr), done.stderr[-300:]


def test_full_installation_imports_every_module(full_python: Path) -> None:
    _output(full_python, IMPORT_EVERY_MODULE, *PACKAGES)


@pytest.mark.parametrize("program", ["provgate", "provgate-gateway", "provgate-workers"])
def test_full_installation_has_the_programs(full_python: Path, program: str) -> None:
    assert "Usage" in _run([str(full_python.parent / program), "--help"])


def _installed(directory: Path, requirement: str) -> Path:
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    # The pip at hand installs into it: one for each environment would take seconds to unpack.
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", requirement])
    return python


def _output(python: Path, program: str, *arguments: str) -> str:
    return _run([str(python), "-W", "error", "-c", program, *arguments])


def _run(command: list[str]) -> str:
    # Not in the clone, whose packages an interpreter would find there.
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
