"""Opens the storage that flags, environment and configuration file name, and ends its calls at Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
import msgspec
from rich.console import Console

from provgate_client.cli.failures import INTERRUPTED, INTERRUPTED_EXIT_CODE, CommandInterruptedError
from provgate_client.cli.output import printable
from provgate_client.settings import SECTION, SECTION_PATH, GrpcSettings
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_runtime import ConfigDocument, ConfigurationError, load_section
from provgate_runtime.document import DEFAULT
from provgate_runtime.options import option_sources
from provgate_storage import RABBITMQ_INSTEAD


class Connection:
    """The gateway that the command line names. Reads nothing before it is opened.

    Args:
        context: of the command that has the options of `GrpcSettings`.
        config: the configuration file; None for the one that the environment names.
    """

    def __init__(self, context: click.Context, config: Path | None) -> None:
        self._context = context
        self._config = config

    @contextmanager
    def open(self, *, named: bool = False, interrupted: str = INTERRUPTED) -> Iterator[ProvenanceStorageGrpc]:
        """Gives an open storage, which raises if a write may be tried again.

        Args:
            named: whether to print the gateway's address, and where it is configured, to standard error.
            interrupted: what to print if Ctrl-C ends the block.

        Raises:
            ConfigurationError: the configuration cannot be read, or is not that of a client.
            GatewayUnavailableError: no gateway answers.
            CommandInterruptedError: Ctrl-C ended the block.
        """
        document = ConfigDocument.load(self._config, profile=True)
        for warning in document.warnings:
            click.echo(f"Warning: {warning}", err=True)
        settings = load_section(self._context, GrpcSettings, grpc_section(document.section(SECTION)), SECTION_PATH)
        if named:
            over, file = option_sources(self._context, GrpcSettings), document.sources(SECTION)
            source = over.get("url") or file.get(("url",), DEFAULT)
            click.echo(f"gateway: {printable(settings.url)} ({source})", err=True)
        storage = ProvenanceStorageGrpc(**msgspec.structs.asdict(settings) | {"raise_on_failure": True})
        with closed_at_interrupt(storage, interrupted), storage:
            yield storage


pass_connection = click.make_pass_decorator(Connection)


def grpc_section(section: dict[str, Any]) -> dict[str, Any]:
    """Returns the section of a client without its `cls`. Raises `ConfigurationError` if that is not grpc."""
    cls = section.pop("cls", "grpc")
    if cls == "grpc":
        return section
    if cls == "rabbitmq":
        raise ConfigurationError(f"{SECTION_PATH}.cls: {RABBITMQ_INSTEAD}")
    instead = f"set {SECTION_PATH} to {{cls: grpc, url: HOST:PORT}}, the address of the gateway"
    raise ConfigurationError(f"{SECTION_PATH}.cls: this program cannot use {cls!r}: {instead}")


_CLOSE_S: Final = 1.0
_UNWIND_S: Final = 2.0


@contextmanager
def closed_at_interrupt(storage: ProvenanceStorageGrpc, message: str) -> Iterator[None]:
    """Ends the block at Ctrl-C, within three seconds, with `CommandInterruptedError(message)`. For the main thread.

    An exception that a signal handler raises in the middle of a lock's code, in `threading`, grpc or rich, leaves the
    lock taken, and the program hangs. So a thread waits for the signal, and does this, one after the other:

    1. It closes the storage. All its calls fail, also those of other threads, and so the block ends.
    2. After a second the block may wait for something else, for example standard input or the connection. A second
       signal, to the main thread, raises `KeyboardInterrupt` there.
    3. After two more seconds it prints the message and ends the process.
    """
    interrupted, forced, ended = threading.Event(), threading.Event(), threading.Event()
    main_thread = threading.get_ident()
    signalled, signals = socket.socketpair()
    signals.setblocking(False)

    def handle(number: int, frame: FrameType | None) -> None:
        if forced.is_set():
            raise KeyboardInterrupt

    def wait_for_signal() -> None:
        if not signalled.recv(1):  # the block has ended
            signalled.close()
            return
        interrupted.set()
        threading.Thread(target=storage.close, name="close", daemon=True).start()
        if ended.wait(_CLOSE_S):
            return
        forced.set()
        signal.pthread_kill(main_thread, signal.SIGINT)
        time.sleep(_UNWIND_S)
        if not ended.is_set():
            Console(stderr=True).show_cursor()
            click.echo(message, err=True)
        os._exit(INTERRUPTED_EXIT_CODE)

    # The wakeup fd gets the signal even if the main thread does not wake up to run the handler. It is set before the
    # handler and restored after it, because the handler alone would lose the signal.
    fd_before = signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)
    handler_before = signal.signal(signal.SIGINT, handle)
    threading.Thread(target=wait_for_signal, name="interrupt", daemon=True).start()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if interrupted.is_set():
            raise CommandInterruptedError(message) from error
        raise
    finally:
        ended.set()
        signal.signal(signal.SIGINT, handler_before)
        signal.set_wakeup_fd(fd_before)
        signals.close()
