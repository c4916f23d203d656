"""The ids that arguments of the command line name: as ids, files or URLs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from provgate_client.identifiers import BlobError, IdentifierError, blob_id, is_identifier, parse_identifier
from provgate_storage.errors import InvalidValueError
from provgate_storage.model import EntityType, Id
from provgate_storage.rows.values import check_url

_STANDARD_INPUT: Final = "-"


class _WithId(msgspec.Struct):
    id: str


def id_of_item(item: str, entity: EntityType) -> Id:
    """Returns the id that `item` names: in hexadecimal, as a SWHID, as a file (contents) or by a URL (origins).

    A name that looks like an id is an id; a file with such a name needs a slash (`./name`).

    Raises:
        IdentifierError: it names nothing of this type.
    """
    if is_identifier(item):
        return parse_identifier(item, entity)
    if entity is EntityType.CONTENT:
        return _id_of_file(item)
    if entity is EntityType.ORIGIN and "://" in item:
        try:
            return hashlib.sha1(check_url(item).encode(), usedforsecurity=False).digest()
        except InvalidValueError as error:
            raise IdentifierError(f"{item!r}: {error}") from error
    return parse_identifier(item, entity)


def ids_of_items(items: Iterable[str], entity: EntityType) -> Iterator[Id]:
    """Yields the id of each item; for `-` the ids on the lines of standard input.

    Raises:
        IdentifierError: an item names nothing of this type.
    """
    for item in items:
        if item == _STANDARD_INPUT:
            yield from _ids_of_lines(entity)
        else:
            yield id_of_item(item, entity)


def _ids_of_lines(entity: EntityType) -> Iterator[Id]:
    for number, line in enumerate(sys.stdin, start=1):
        text = line.strip()
        if not text:
            continue
        try:
            yield parse_identifier(msgspec.json.decode(text, type=_WithId).id if text[0] == "{" else text, entity)
        except (IdentifierError, msgspec.MsgspecError) as error:
            raise IdentifierError(f"line {number}: {error}") from error


def _id_of_file(item: str) -> Id:
    try:
        return blob_id(Path(item))
    except BlobError as error:
        raise IdentifierError(str(error)) from error
    except (FileNotFoundError, ValueError) as error:
        raise IdentifierError(f"{item!r} is neither an id nor a file") from error
    except OSError as error:
        raise IdentifierError(f"{item}: {error.strerror}") from error
