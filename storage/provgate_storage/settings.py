"""The settings that every storage over a database takes."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from provgate_runtime import Settings

CONFIG_PATH: Final = "storage_config"
"""Where the settings of a storage stand, as messages name it."""


class DatabaseSettings(Settings, frozen=True):
    """How many calls run at once, and how long they wait.

    `program_sets` says what a program of ours sets where the configuration does not.
    """

    application_name: Annotated[
        str,
        Meta(
            description="The name by which the database lists the connections.",
            extra={"program_sets": "the name of the program"},
        ),
    ] = "provgate"
    write_connections: Annotated[
        int,
        Meta(
            ge=1,
            description="At most so many connections for writes.",
            extra={"program_sets": "storage_threads of the workers, and 4 more"},
        ),
    ] = 4
    read_connections: Annotated[
        int,
        Meta(
            ge=1,
            description="At most so many connections for reads by id.",
            extra={"program_sets": "unary_reads of the gateway, and one more"},
        ),
    ] = 4
    stream_connections: Annotated[
        int,
        Meta(
            ge=1,
            description="At most so many streamed reads at once. With fewer than the gateway has turns for, its reads "
            "by id and its listings wait for one another.",
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
        float, Meta(gt=0, description="How long one statement of a write may run, in seconds; set-up has no limit.")
    ] = 120.0
    read_timeout_s: Annotated[
        float, Meta(gt=0, description="How long one statement of a read by id may run, in seconds.")
    ] = 30.0
    stream_timeout_s: Annotated[
        float, Meta(gt=0, description="How long a streamed read may compute its next chunk, in seconds.")
    ] = 600.0
    stream_chunk_row_count: Annotated[
        int, Meta(ge=1, le=100_000, description="Rows of one chunk of a streamed read.")
    ] = 1_000

    def __repr__(self) -> str:
        # Where the database is may hold a password.
        return f"{type(self).__name__}(application_name={self.application_name!r}, ...)"
