"""`provgate id`: prints ids in their three forms."""

from __future__ import annotations

from typing import Self

import click

from provgate_client.cli.items import id_of_item
from provgate_client.cli.output import format_option, print_rows
from provgate_client.cli.rows import Row
from provgate_client.identifiers import entity_of_swhid, from_base64, to_base64, to_swhid
from provgate_storage.model import EntityType, Id


class _IdRow(Row[tuple[Id, EntityType]], frozen=True):
    """An id in its three forms."""

    id: str
    swhid: str
    base64: str

    @classmethod
    def of(cls, value: tuple[Id, EntityType]) -> Self:
        id, entity = value
        return cls(id.hex(), to_swhid(id, entity), to_base64(id))


@click.command("id", short_help="Prints ids in hexadecimal, as SWHIDs and in base64.")
@click.argument("items", metavar="ID|FILE|URL...", nargs=-1, required=True)
@click.option(
    "--type",
    "type_",
    type=click.Choice([entity.value for entity in EntityType]),
    default=EntityType.CONTENT.value,
    show_default=True,
    help="The type of items that are not SWHIDs.",
)
@click.option("--base64", "base64_", is_flag=True, help="The items are ids in base64, as grpcurl prints them.")
@format_option
def id_(items: tuple[str, ...], type_: str, base64_: bool, output_format: str | None) -> None:
    """Prints ids in hexadecimal, as SWHIDs, and in base64 as grpcurl reads and prints them.

    A FILE is hashed as git does, the URL of an origin (with --type origin) as Software Heritage does. Needs no gateway.
    """
    rows = []
    for item in items:
        entity = entity_of_swhid(item) or EntityType(type_)
        rows.append(_IdRow.of((from_base64(item) if base64_ else id_of_item(item, entity), entity)))
    print_rows(rows, _IdRow, output_format)
