"""From flags, environment and file to an open storage."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
import msgspec

from provgate_client.cli.output import printable
from provgate_client.settings import SECTION, SECTION_PATH, GrpcSettings
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_runtime import ConfigDocument, ConfigurationError, load_section
from provgate_runtime.document import DEFAULT
from provgate_runtime.options import option_sources
from provgate_storage import RABBITMQ_INSTEAD

# Who enters `threading.Condition`, which is done in Python: an exception between the lock and the body leaves the lock
# taken, and whoever needs it next waits for ever.
_LOCKING: Final = frozenset({"grpc", "threading", "concurrent"})

_PATIENCE_S: Final = 3.0


@contextmanager
def interruptible(storage: ProvenanceStorageGrpc) -> Iterator[None]:
    """Ends the block with `KeyboardInterrupt` when Ctrl-C is pressed, and closes `storage`, so that its calls end.

    Those of other threads too, for which the main thread would then wait, perhaps for minutes. Where the main thread
    may hold a lock, its call is what ends the block, within `_PATIENCE_S`; a second Ctrl-C raises at once. Only the
    main thread may enter it.

    A thread learns of the signal and closes the storage. The handler alone would not do: Python runs it when the main
    thread runs, and a signal that comes just before the main thread begins to wait does not wake it.
    """
    happened = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal happened
        again, happened = happened, True
        if again or not _may_hold_a_lock(frame):
            raise KeyboardInterrupt

    told, tells = socket.socketpair()
    tells.setblocking(False)
    ended = threading.Event()
    threading.Thread(
        target=_close_at_signal, args=(storage, told, threading.get_ident(), ended), name="interrupt", daemon=True
    ).start()
    fd_before = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    handler_before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if happened:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, handler_before)
        signal.set_wakeup_fd(fd_before)
        ended.set()
        tells.close()


def _close_at_signal(
    storage: ProvenanceStorageGrpc, told: socket.socket, main_thread: int, ended: threading.Event
) -> None:
    """Closes the storage when the signal has come, and insists where the block does not end then."""
    with told:
        while number := told.recv(1):
            if number[0] == signal.SIGINT:
                storage.close()
                if not ended.wait(_PATIENCE_S):
                    signal.pthread_kill(main_thread, signal.SIGINT)
                ended.wait()
                return


def _may_hold_a_lock(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _LOCKING:
            return True
        frame = frame.f_back
    return False


class Connection:
    """The way to the gateway that the command line names. Nothing is read before it is opened.

    Args:
        context: of the command that has the options of `GrpcSettings`.
        config: the configuration file; None for the one that the environment names.
    """

    def __init__(self, context: click.Context, config: Path | None) -> None:
        self._context = context
        self._config = config

    @contextmanager
    def open(self, *, named: bool = False) -> Iterator[ProvenanceStorageGrpc]:
        """Gives an open storage, which raises where a write could be tried again, and which Ctrl-C closes.

        Args:
            named: whether to say first, on standard error, which gateway that is, and what names it.

        Raises:
            ConfigurationError: the configuration cannot be read, or is not that of a client.
            GatewayUnavailableError: no gateway answers.
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
        with storage, interruptible(storage):
            yield storage


def grpc_section(section: dict[str, Any]) -> dict[str, Any]:
    """Returns the section of a client without its `cls`. Raises `ConfigurationError` where that is not grpc."""
    cls = section.pop("cls", "grpc")
    if cls == "grpc":
        return section
    if cls == "rabbitmq":
        raise ConfigurationError(f"{SECTION_PATH}.cls: {RABBITMQ_INSTEAD}")
    instead = f"set {SECTION_PATH} to {{cls: grpc, url: HOST:PORT}}, the address of the gateway"
    raise ConfigurationError(f"{SECTION_PATH}.cls: {cls!r} is not reached by this program: {instead}")


pass_connection = click.make_pass_decorator(Connection)
