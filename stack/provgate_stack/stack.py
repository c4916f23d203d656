"""Workers and gateways on running servers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from provgate_runtime.document import profile_name
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK, free_ports
from provgate_stack.processes.programs import GatewayProgram, ReadyFileProgram, WorkerProgram, program_environment

Sections: TypeAlias = Mapping[str, Mapping[str, Any]]
StorageConfig: TypeAlias = Mapping[str, Any]


class Stack:
    """Worker programs and gateways on one virtual host and one database, and the configuration that they share.

    Not thread-safe. A context manager that stops all of them.

    Args:
        rabbitmq_url: the URL of the virtual host.
        storage_config: the database, as `provenance.rabbitmq.storage_config` has it.
        directory: the directory of the stack; several stacks with different names may share it, and its servers.
        overrides: settings that differ from the defaults, by section (`rabbitmq`, `gateway`) of the configuration.
        name: the subdirectory of configuration and logs; the directory itself if None.
        port: the port of the first gateway; any free one if None.

    Attributes:
        path: the directory of configuration and logs.
        address: the address of the first gateway, also after it was restarted: `host:port`.
        config: the configuration file for clients; its `storage` is the first gateway.
        workers: every worker program that was started, also those that ended.
        gateways: every gateway that was started, also those that ended.
    """

    def __init__(
        self,
        rabbitmq_url: str,
        storage_config: StorageConfig,
        directory: StackDirectory,
        overrides: Sections | None = None,
        name: str | None = None,
        port: int | None = None,
    ) -> None:
        self.path = directory.subdirectory(name) if name else directory.path
        self.workers: list[WorkerProgram] = []
        self.gateways: list[GatewayProgram] = []
        self._directory = directory
        self.address = f"{LOOPBACK}:{port or free_ports(1)[0]}"
        defaults: Sections = {
            "storage": {"cls": "grpc", "url": self.address},
            "rabbitmq": {"url": rabbitmq_url, "storage_config": dict(storage_config)},
            "gateway": {"listen": f"{LOOPBACK}:0"},
        }
        self._sections = _merged(defaults, overrides or {})
        self.config = self._write_config("config.yaml", {"gateway": {"listen": self.address}})

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts one worker program and the first gateway; returns when both are ready.

        Raises:
            StartError: one of them ended, or was not ready in time.
        """
        # The gateway checks the topology and the schema that the workers set up.
        self.start_workers()
        self.start_gateway(listen=self.address)

    def start_workers(self, wait: bool = True, **overrides: Any) -> WorkerProgram:
        """Starts one more worker program.

        Args:
            wait: whether to wait until it is ready.
            overrides: settings of the section `rabbitmq` for this program alone.
        """
        environment, log_path, metrics_listen = self._configure("workers", len(self.workers), "rabbitmq", overrides)
        program = WorkerProgram(environment, log_path, metrics_listen)
        self.workers.append(program)
        _start(program, wait)
        return program

    def start_gateway(self, wait: bool = True, **overrides: Any) -> GatewayProgram:
        """Starts one more gateway, on a port of its own unless `listen` is among the overrides.

        Args:
            wait: whether to wait until it is ready.
            overrides: settings of the section `gateway` for this gateway alone.
        """
        environment, log_path, metrics_listen = self._configure("gateway", len(self.gateways), "gateway", overrides)
        program = GatewayProgram(environment, log_path, metrics_listen)
        self.gateways.append(program)
        _start(program, wait)
        return program

    def write_profile(self) -> Path:
        """Writes the profile of the clone, for clients and operators, and returns its path.

        It has the addresses of the first gateway, and of the watch ports of that one and the first worker program.
        """
        gateway = {"listen": self.address, "metrics_listen": self.gateways[0].metrics_address}
        workers = {"metrics_listen": self.workers[0].metrics_address}
        return self._write_config(profile_name(), {"gateway": gateway, "rabbitmq": workers})

    def metrics_addresses(self) -> list[str]:
        """Returns the addresses of the watch ports of the running programs."""
        return [program.metrics_address for program in [*self.gateways, *self.workers] if program.alive]

    def client_environment(self) -> dict[str, str]:
        """Returns the environment in which `provgate` uses the first gateway."""
        return program_environment(self._directory, "client", self.config)

    def stop(self) -> None:
        """Asks gateways, then workers, to end, and waits for them. Idempotent.

        A gateway still needs workers for the writes that it has accepted.

        Raises:
            StackError: one did not end in time and was killed.
        """
        for program in [*self.gateways, *self.workers]:
            if program.alive:
                program.terminate()

    def kill(self) -> None:
        """Kills all of them. Idempotent."""
        for program in [*self.gateways, *self.workers]:
            program.kill()

    def _configure(
        self, role: str, number: int, section: str, overrides: Mapping[str, Any]
    ) -> tuple[dict[str, str], Path, str]:
        """Writes the configuration of a program; returns its environment, log file and watch address."""
        # Not the default port: several stacks run beside each other.
        settings = {"metrics_listen": f"{LOOPBACK}:{free_ports(1)[0]}", **overrides}
        config = self._write_config(f"{role}-{number}.yaml", {section: settings})
        environment = program_environment(self._directory, role, config)
        return environment, self.path / f"{role}-{number}.log", settings["metrics_listen"]

    def _write_config(self, name: str, overrides: Sections) -> Path:
        path = self.path / name
        # It holds the passwords of the servers.
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump({"provenance": _merged(self._sections, overrides)}), encoding="utf-8")
        return path


def _start(program: ReadyFileProgram, wait: bool) -> None:
    program.start()
    if wait:
        program.wait_ready()


def _merged(sections: Sections, overrides: Sections) -> dict[str, dict[str, Any]]:
    return {name: {**sections.get(name, {}), **overrides.get(name, {})} for name in {**sections, **overrides}}
