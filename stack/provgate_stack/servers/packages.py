"""Gets the servers' packages through apt, without a system service being started by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from provgate_stack.command_line import uninterrupted
from provgate_stack.errors import MissingProgramError, StackError
from provgate_stack.servers.installed import postgresql_programs, promtool_program, rabbitmq_programs
from provgate_stack.servers.selection import ExistingPostgreSql, ExistingRabbitMq

# What packages' scripts ask before they start a service; 101 forbids it.
# https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT: Final = """#!/bin/sh
# Written by provgate while it installs packages, and removed by it afterwards.
# cron comes with rabbitmq-server (by way of logrotate) where it was not there before.
case "$1" in rabbitmq-server* | postgresql* | prometheus* | epmd* | cron*) exit 101 ;; esac
exit 0
"""

# The services' processes, and who runs for RabbitMQ's beside them and stays when it stops.
_SERVICES: Final = {"beam.smp": "rabbitmq-server", "postgres": "postgresql", "prometheus": "prometheus"}
_EPMD: Final = "epmd"

# For a dpkg that is at work: an interrupted one leaves packages that must be repaired by hand, and dpkg takes a Ctrl-C
# at the terminal whatever apt-get does. Within sudo, as sudo asks for the password at the terminal.
_OUT_OF_REACH: Final = ("setsid", "--wait")
_WAIT_FOR_LOCK: Final = ("--option", "DPkg::Lock::Timeout=300")
_APT_INSTALL: Final = ("install", "--yes", "--no-install-recommends")


def install_missing_servers(storage: str) -> None:
    """Installs the packages of the servers that are needed and not there; does nothing where none is missing.

    Args:
        storage: what the stack runs on. MongoDB's server is no package of the system: it comes with `make venv`.

    Raises:
        MissingProgramError: a server is missing, and apt or the rights to use it are too.
        StackError: apt failed.
    """
    _install(_missing_servers(storage))


def install_what_tests_need() -> None:
    """Installs the packages that the tests need and that are not there: the servers, and Prometheus for its promtool.

    Raises:
        MissingProgramError: one is missing, and apt or the rights to use it are too.
        StackError: apt failed.
    """
    _install(_missing_servers("postgresql") + ([] if _is_there(promtool_program) else ["prometheus"]))


def _install(packages: list[str]) -> None:
    if not packages:
        _remove_forgotten_policy()
        return
    _require_apt(packages)
    print(f"Installing {' and '.join(packages)}; their system services are not started", flush=True)
    _apt("update")
    _apt(*_APT_INSTALL, "--download-only", *packages)
    with uninterrupted(), _services_not_started():
        _apt(*_APT_INSTALL, *packages, before=_OUT_OF_REACH)


def _missing_servers(storage: str) -> list[str]:
    missing = []
    if not ExistingRabbitMq.of_environment() and not _is_there(rabbitmq_programs):
        missing.append("rabbitmq-server")
    if storage == "postgresql" and not ExistingPostgreSql.of_environment() and not _is_there(postgresql_programs):
        missing.append("postgresql")
    return missing


def _is_there(find: Callable[[], object]) -> bool:
    try:
        find()
    except MissingProgramError:
        return False
    return True


def _require_apt(packages: list[str]) -> None:
    names = " and ".join(packages)
    if shutil.which("apt-get") is None:
        raise MissingProgramError(
            f"{names} must be installed (RabbitMQ 3.10 or newer, PostgreSQL 13 or newer), and there is no apt-get here "
            "to do it: install them with your system's package manager, or, of servers, name running ones in "
            "PROVGATE_AMQP_URL and PROVGATE_POSTGRES_DSN"
        )
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        raise MissingProgramError(f"{names} must be installed: run `apt-get install {' '.join(packages)}` as root")


def _as_root(*command: str) -> list[str]:
    return [*command] if os.geteuid() == 0 else ["sudo", *command]


def _apt(*arguments: str, before: Sequence[str] = ()) -> None:
    # Through `env`: sudo drops the environment.
    command = [*before, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", *_WAIT_FOR_LOCK, *arguments]
    if subprocess.run(_as_root(*command), stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise StackError(f"`apt-get {' '.join(arguments)}` failed; install the packages by hand, or try again")


@contextmanager
def _services_not_started() -> Iterator[None]:
    """Keeps the packages' system services from running; a policy that somebody else set stays as it is."""
    if _POLICY.exists() and not _policy_is_ours():
        before = _daemons()
        yield
        # Where that policy let them start. They were not there before, so nobody else uses them.
        _end_services(_daemons() - before)
        return
    with tempfile.NamedTemporaryFile("w", prefix="provgate-policy-") as file:
        file.write(_POLICY_TEXT)
        file.flush()
        subprocess.run(_as_root("install", "-m", "755", file.name, str(_POLICY)), check=True)
    try:
        yield
    finally:
        subprocess.run(_as_root("rm", "-f", str(_POLICY)), check=True)


def _daemons() -> set[psutil.Process]:
    names = {*_SERVICES, _EPMD}
    return {process for process in psutil.process_iter(["name"]) if process.info["name"] in names}


def _end_services(started: set[psutil.Process]) -> None:
    # Only those that run: to ask RabbitMQ's service anything, even to stop, starts an epmd.
    for service in {_SERVICES[name] for name in (process.info["name"] for process in started) if name in _SERVICES}:
        subprocess.run(_as_root("service", service, "stop"), stderr=subprocess.DEVNULL, check=False)
    for process in started:
        if process.info["name"] == _EPMD and process.is_running():
            subprocess.run(_as_root("kill", str(process.pid)), check=False)


def _remove_forgotten_policy() -> None:
    # A launcher that was killed while it installed did not remove it.
    if _policy_is_ours():
        subprocess.run(_as_root("rm", "-f", str(_POLICY)), check=True)


def _policy_is_ours() -> bool:
    return _POLICY.exists() and _POLICY.read_text(encoding="utf-8", errors="replace") == _POLICY_TEXT
