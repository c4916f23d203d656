"""The settings of the MongoDB storage: how to reach the database, and how long to wait for it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import closing
from typing import Annotated, Any, Final

from msgspec import Meta
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from provgate_runtime import ConfigurationError, convert
from provgate_storage.settings import CONFIG_PATH, DatabaseSettings

_DEFAULT_DATABASE: Final = "provenance"

# The keys of a mapping that are not pymongo's own options.
_USER: Final = "user"
_DATABASE: Final = "dbname"


class MongoDbSettings(DatabaseSettings, frozen=True, kw_only=True):
    """The settings of `ProvenanceStorageMongoDb`."""

    db: Annotated[
        str | dict[str, str | int | bool],
        Meta(
            description="A mongodb:// or mongodb+srv:// URI whose path is the name of the database (`provenance` if it "
            "has none), or a mapping of host, port, dbname, user, password and further options of such a URI.",
            extra={"option": False},
        ),
    ]
    connect_timeout_s: Annotated[
        float,
        Meta(gt=0, description="How long a call waits for a primary, and for a connection to be made, in seconds."),
    ] = 5.0


def parse_settings(values: Mapping[str, Any]) -> MongoDbSettings:
    """Returns `values` as settings.

    Raises:
        ConfigurationError: as `convert` does, pymongo does not understand `db`, or `db` asks for writes that the server
            does not acknowledge. The text never quotes `db`.
    """
    path, settings = f"{CONFIG_PATH}.db", convert(values, MongoDbSettings, CONFIG_PATH)
    try:
        with warnings.catch_warnings():
            # pymongo warns of unknown options.
            warnings.simplefilter("error")
            options = client_options(settings, settings.write_timeout_s)
            # pymongo refuses `journal` beside w=0 with the error that it raises for an unknown option.
            options.pop("journal", None)
            with closing(MongoClient[Any](**options, connect=False)) as client:
                acknowledged = client.write_concern.acknowledged
                # This refuses names that no database can have.
                client.get_database(database_name(settings))
    except (PyMongoError, ValueError, TypeError, UserWarning):
        # The texts may quote `db`, the password too.
        raise ConfigurationError(
            f"{path}: it is neither a MongoDB URI nor a mapping of host, port, dbname, user, password, URI options"
        ) from None
    if not acknowledged:
        raise ConfigurationError(f"{path}: with w=0 the server acknowledges no write, so that none could be acked")
    return settings


def database_name(settings: MongoDbSettings) -> str:
    """Returns the name of the database."""
    if isinstance(settings.db, str):
        return _parsed(settings.db)["database"] or _DEFAULT_DATABASE
    return str(settings.db.get(_DATABASE, _DEFAULT_DATABASE))


def client_options(settings: MongoDbSettings, answer_timeout_s: float) -> dict[str, Any]:
    """Returns the arguments of `pymongo.MongoClient`.

    `db` overrides provgate's defaults: a write is acknowledged when a majority of the members has it in its journal,
    and a read sees what a majority has. The driver repeats a failed write or read once where that may help.

    Args:
        settings: of the storage.
        answer_timeout_s: a connection is given up after this time without an answer, in seconds; 0 for never. Not
            pymongo's `timeout`: under it the driver retries without a pause until it has passed.
    """
    timeout_ms = round(settings.connect_timeout_s * 1000)
    own = {
        "appname": settings.application_name,
        "w": "majority",
        "journal": True,
        "readconcernlevel": "majority",
        "serverselectiontimeoutms": timeout_ms,
        "connecttimeoutms": timeout_ms,
        "sockettimeoutms": round(answer_timeout_s * 1000),
        # Calls take a slot before they take a connection, so that none waits here. The two are for probes, and for the
        # ends of streams.
        "maxpoolsize": settings.write_connections + settings.read_connections + settings.stream_connections + 2,
    }
    if isinstance(settings.db, str):
        # Lower case, like `own`: pymongo ignores the case of names.
        named = {name.lower() for name in _parsed(settings.db)["options"]}
        return {name: value for name, value in own.items() if name not in named} | {"host": settings.db}
    given = {name.lower(): value for name, value in settings.db.items() if name != _DATABASE}
    if _USER in given:
        given["username"] = given.pop(_USER)
    return own | given


def _parsed(uri: str) -> Mapping[str, Any]:
    # Without the question to the name server that an SRV URI causes: options and path have the same form.
    parsed: Mapping[str, Any] = parse_uri(uri.replace("mongodb+srv://", "mongodb://", 1))
    return parsed
