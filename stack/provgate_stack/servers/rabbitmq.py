"""A private RabbitMQ node on loopback, with an epmd of its own."""

from __future__ import annotations

import secrets
import shutil
import socket
import ssl
import subprocess
from typing import Final
from urllib.parse import quote

from provgate_stack.errors import StackError
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK, ChildProgram, free_ports
from provgate_stack.servers.installed import rabbitmq_programs
from provgate_stack.servers.private import PrivateServer, ServerTls, inherited_environment

_USER: Final = "provgate"
_READY_S: Final = 60.0
_CONTROL_S: Final = 60.0
_PROBE_S: Final = 1.0
_PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"


class RabbitMqNode(PrivateServer):
    """A private RabbitMQ server: own ports, data, cookie and epmd. An installed service is not touched.

    Ports, data and password stay the same over restarts. Not thread-safe.

    Args:
        directory: the directory of the stack; all files are below it.
        name: the name of its subdirectory, for a stack with several nodes.
        tls: makes it listen for amqps:// alone.

    Raises:
        MissingProgramError: RabbitMQ is not installed.
    """

    def __init__(self, directory: StackDirectory, name: str = "rabbitmq", tls: ServerTls | None = None) -> None:
        self._programs = rabbitmq_programs()
        self._tls = tls
        self._home = directory.subdirectory(name)
        self.port, distribution_port, epmd_port = free_ports(3)
        self._password = secrets.token_urlsafe(12)
        self._environment = self._build_environment(distribution_port, epmd_port) | directory.environment("rabbitmq")
        self._write_files()
        # Erlang would start one as a daemon, which outlives the node.
        self._epmd = self._program("epmd", ["epmd", "-address", LOOPBACK, "-port", str(epmd_port)])
        super().__init__(self._program("rabbitmq", [str(self._programs / "rabbitmq-server")]))

    def url(self, vhost: str = "/") -> str:
        """Returns the AMQP URL of a virtual host, with user and password."""
        return self.url_of(_USER, self._password, vhost)

    def url_of(self, user: str, password: str, vhost: str) -> str:
        """Returns the AMQP URL of a virtual host for another user."""
        scheme = "amqp" if self._tls is None else "amqps"
        return f"{scheme}://{user}:{password}@{LOOPBACK}:{self.port}/{quote(vhost, safe='')}"

    def start(self) -> None:
        """Starts the node; returns when it accepts connections (5 to 6 s).

        Raises:
            StartError: it ended or was not ready in time.
        """
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Starts the node; returns at once."""
        if not self._epmd.alive:
            self._epmd.start()
        self._server.start()

    def wait_ready(self) -> None:
        """Returns when a launched node accepts connections.

        Raises:
            StartError: it ended or was not ready in time.
        """
        self._server.wait_until(self._accepts, _READY_S)

    def stop(self) -> None:
        """Stops the node (SIGTERM) and its epmd. Idempotent."""
        if self._server.alive:
            self._server.terminate()
        self._epmd.kill()

    def kill(self) -> None:
        """Kills the node (SIGKILL), and its epmd. Idempotent."""
        super().kill()
        self._epmd.kill()

    def restart(self) -> None:
        """Stops and starts the node, with the same ports and data."""
        self.stop()
        self.start()

    def ctl(self, *arguments: str) -> str:
        """Returns the output of `rabbitmqctl --quiet` (0.4 s a call).

        Raises:
            StackError: the command failed.
        """
        return self._run([str(self._programs / "rabbitmqctl"), "--quiet", *arguments])

    def add_vhost(self, name: str) -> None:
        """Creates an empty virtual host in which the node's user has all permissions."""
        permissions = f'<<"{_USER}">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"{_USER}">>'
        self.evaluate(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"{_USER}">>), '
            f"ok = rabbit_auth_backend_internal:set_permissions({permissions})."
        )

    def delete_vhost(self, name: str) -> None:
        """Deletes a virtual host with its content; connections to it are closed."""
        self.evaluate(f'ok = rabbit_vhost:delete(<<"{name}">>, <<"{_USER}">>).')

    def evaluate(self, expression: str) -> str:
        """Evaluates an Erlang expression in the node and returns its value (20 ms, or 0.4 s without erl_call).

        Raises:
            StackError: it failed.
        """
        if shutil.which("erl_call") is None:
            return self.ctl("eval", expression)
        node = self._environment["RABBITMQ_NODENAME"]
        answer = self._run(
            ["erl_call", "-r", "-sname", node, "-timeout", str(int(_CONTROL_S)), "-e"], f"{expression}\n"
        )
        if not answer.startswith("{ok, "):
            raise StackError(f"RabbitMQ answered {answer} to {expression}")
        return answer.removeprefix("{ok, ").removesuffix("}")

    def _run(self, command: list[str], text: str = "") -> str:
        try:
            done = subprocess.run(
                command, env=self._environment, input=text, capture_output=True, text=True, timeout=_CONTROL_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StackError(f"{command[0]}: {error}") from error
        if done.returncode != 0:
            raise StackError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def _accepts(self) -> bool:
        # The listener opens last during the boot. It answers with a method frame (Connection.Start), whose type is 1.
        try:
            connection = socket.create_connection((LOOPBACK, self.port), timeout=_PROBE_S)
            if self._tls is not None:
                context = ssl.create_default_context(cafile=self._tls.ca)
                context.load_cert_chain(self._tls.client)
                connection = context.wrap_socket(connection, server_hostname=LOOPBACK)
            with connection:
                connection.sendall(_PROTOCOL_HEADER)
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def _program(self, name: str, command: list[str]) -> ChildProgram:
        return ChildProgram(command, self._environment, self._home / f"{name}.log")

    def _write_files(self) -> None:
        cookie = self._home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16), encoding="ascii")
        cookie.chmod(0o400)
        (self._home / "enabled_plugins").write_text("[].\n", encoding="ascii")
        (self._home / "rabbitmq-env.conf").touch()
        configuration = self._home / "rabbitmq.conf"
        configuration.touch(mode=0o600)
        lines = [f"default_user = {_USER}", f"default_pass = {self._password}"]
        if self._tls is None:
            lines.append(f"listeners.tcp.1 = {LOOPBACK}:{self.port}")
        else:
            lines += [
                "listeners.tcp = none",
                f"listeners.ssl.1 = {LOOPBACK}:{self.port}",
                f"ssl_options.cacertfile = {self._tls.ca}",
                f"ssl_options.certfile = {self._tls.certificate}",
                f"ssl_options.keyfile = {self._tls.key}",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = true",
            ]
        configuration.write_text("\n".join([*lines, ""]), encoding="ascii")

    def _build_environment(self, distribution_port: int, epmd_port: int) -> dict[str, str]:
        # The default of each variable that names a file is a file of the installed service.
        on_loopback = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
        home = str(self._home)
        return inherited_environment("TMPDIR") | {
            "HOME": home,
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_CRASH_DUMP": f"{home}/erl_crash.dump",
            "RABBITMQ_NODENAME": "provgate@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{home}/conf.d",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/advanced.config",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/generated",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": on_loopback,
            "RABBITMQ_CTL_ERL_ARGS": on_loopback,
        }
