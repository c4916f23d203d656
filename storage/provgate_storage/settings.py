"""The settings of every storage over a database: how many calls run at once, and how long they wait."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from provgate_runtime import Settings

CONFIG_PATH: Final = "storage_config"
"""The path of a storage's settings in messages."""


class DatabaseSettings(Settings, frozen=True):
    """The common settings. `program_sets` says what a program sets if the configuration does not."""

    application_name: Annotated[
        str,
        Meta(
            description="The name of the connections in the database's lists.",
            extra={"program_sets": "the name of the program"},
        ),
    ] = "provgate"
    write_connections: Annotated[
        int,
        Meta(
            ge=1,
            description="The limit of connections for writes.",
            extra={"program_sets": "storage_threads of the workers, and 4 more"},
        ),
    ] = 4
    read_connections: Annotated[
        int,
        Meta(
            ge=1,
            description="The limit of connections for reads by id.",
            extra={"program_sets": "unary_reads of the gateway, and one more"},
        ),
    ] = 4
    stream_connections: Annotated[
        int,
        Meta(
            ge=1,
            description="The limit of concurrent streamed reads. Below by_id_reads and listings of the gateway "
            "together, it makes these wait for each other.",
            extra={"program_sets": "by_id_reads and listings of the gateway together"},
        ),
    ] = 8
    connection_wait_s: Annotated[
        float, Meta(ge=0, description="How long a write or a read by id waits for a free connection, in seconds.")
    ] = 30.0
    stream_wait_s: Annotated[
        float, Meta(ge=0, description="How long a streamed read waits for a free connection, in seconds.")
    ] = 2.0
    write_timeout_s: Annotated[
        float, Meta(gt=0, description="The time limit of one statement of a write, in seconds; set-up has no limit.")
    ] = 120.0
    read_timeout_s: Annotated[
        float, Meta(gt=0, description="The time limit of one statement of a read by id, in seconds.")
    ] = 30.0
    stream_timeout_s: Annotated[
        float, Meta(gt=0, description="The time limit for the next chunk of a streamed read, in seconds.")
    ] = 600.0
    stream_chunk_row_count: Annotated[
        int, Meta(ge=1, le=100_000, description="Rows of one chunk of a streamed read.")
    ] = 1_000

    def __repr__(self) -> str:
        # `db` may hold a password.
        return f"{type(self).__name__}(application_name={self.application_name!r}, ...)"
