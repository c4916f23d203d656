"""Installs the servers' packages through apt, without starting their system services.

Raises `MissingProgramError` if a package is missing and apt, or the right to use it, is too, and `StackError` if apt
fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from provgate_stack.command_line import uninterrupted
from provgate_stack.errors import MissingProgramError, StackError
from provgate_stack.servers.installed import postgresql_programs, promtool_program, rabbitmq_programs
from provgate_stack.servers.selection import ExistingPostgreSql, ExistingRabbitMq

# The scripts of packages run it before they start a service; 101 forbids the start.
# https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT: Final = """#!/bin/sh
# Written by provgate while it installs packages, and removed afterwards.
# rabbitmq-server depends on logrotate, and that on cron.
case "$1" in rabbitmq-server* | postgresql* | prometheus* | epmd* | cron*) exit 101 ;; esac
exit 0
"""

# An interrupted dpkg leaves packages that must be repaired by hand, and a Ctrl-C at the terminal reaches dpkg whatever
# apt-get does. `setsid` runs within sudo, because sudo asks for the password at the terminal.
_WITHOUT_TERMINAL: Final = ("setsid", "--wait")
_WAIT_FOR_LOCK: Final = ("--option", "DPkg::Lock::Timeout=300")
_APT_INSTALL: Final = ("install", "--yes", "--no-install-recommends")


def install_missing_servers(storage: str) -> None:
    """Installs the packages of the servers that a stack on `storage` needs and that are missing.

    MongoDB's server is no package of the system: it comes with `make venv`.
    """
    _install(_missing_servers(storage))


def install_what_tests_need() -> None:
    """Installs the missing packages that tests need: the servers, and Prometheus for its promtool."""
    _install(_missing_servers("postgresql") + ([] if _is_installed(promtool_program) else ["prometheus"]))


def _missing_servers(storage: str) -> list[str]:
    missing = []
    if not ExistingRabbitMq.of_environment() and not _is_installed(rabbitmq_programs):
        missing.append("rabbitmq-server")
    if storage == "postgresql" and not ExistingPostgreSql.of_environment() and not _is_installed(postgresql_programs):
        missing.append("postgresql")
    return missing


def _is_installed(find: Callable[[], object]) -> bool:
    try:
        find()
    except MissingProgramError:
        return False
    return True


def _install(packages: list[str]) -> None:
    if not packages:
        # A launcher that was killed during an installation left it.
        _remove_own_policy()
        return
    names = " and ".join(packages)
    if shutil.which("apt-get") is None:
        raise MissingProgramError(
            f"{names} must be installed (RabbitMQ 3.10 or newer, PostgreSQL 13 or newer), and there is no apt-get here "
            "to do it: install them with your system's package manager, or, of servers, name running ones in "
            "PROVGATE_AMQP_URL and PROVGATE_POSTGRES_DSN"
        )
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        raise MissingProgramError(f"{names} must be installed: run `apt-get install {' '.join(packages)}` as root")
    print(f"Installing {names}; their system services are not started", flush=True)
    _apt("update")
    _apt(*_APT_INSTALL, "--download-only", *packages)
    with uninterrupted(), _services_not_started():
        _apt(*_APT_INSTALL, *packages, before=_WITHOUT_TERMINAL)


def _as_root(*command: str) -> list[str]:
    return [*command] if os.geteuid() == 0 else ["sudo", *command]


def _apt(*arguments: str, before: Sequence[str] = ()) -> None:
    # Through `env`: sudo drops the environment.
    command = [*before, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", *_WAIT_FOR_LOCK, *arguments]
    if subprocess.run(_as_root(*command), stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise StackError(f"`apt-get {' '.join(arguments)}` failed; install the packages by hand, or try again")


@contextmanager
def _services_not_started() -> Iterator[None]:
    """Forbids the packages to start their services. An administrator's policy stays as it is, and decides."""
    if _POLICY.exists() and not _policy_is_own():
        yield
        return
    with tempfile.NamedTemporaryFile("w", prefix="provgate-policy-") as file:
        file.write(_POLICY_TEXT)
        file.flush()
        subprocess.run(_as_root("install", "-m", "755", file.name, str(_POLICY)), check=True)
    try:
        yield
    finally:
        _remove_own_policy()


def _remove_own_policy() -> None:
    if _policy_is_own():
        subprocess.run(_as_root("rm", "-f", str(_POLICY)), check=True)


def _policy_is_own() -> bool:
    return _POLICY.exists() and _POLICY.read_text(encoding="utf-8", errors="replace") == _POLICY_TEXT
