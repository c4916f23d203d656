"""`provgate id`."""

from __future__ import annotations

import click

from provgate_client.cli.items import id_of_item
from provgate_client.cli.output import columns_of, format_option, print_rows
from provgate_client.cli.rows import Row
from provgate_client.identifiers import entity_of_swhid, from_base64, to_base64, to_swhid
from provgate_storage.model import EntityType


class IdRow(Row, frozen=True):
    """An id in its three forms."""

    id: str
    swhid: str
    base64: str


@click.command("id", short_help="Prints ids in hexadecimal, as SWHIDs and in base64.")
@click.argument("items", metavar="ID|FILE|URL...", nargs=-1, required=True)
@click.option(
    "--type",
    "type_",
    type=click.Choice([entity.value for entity in EntityType]),
    default=EntityType.CONTENT.value,
    show_default=True,
    help="What the items are, where they do not say so themselves as SWHIDs do.",
)
@click.option("--base64", "base64_", is_flag=True, help="The items are ids in base64, as grpcurl prints them.")
@format_option
def id_(items: tuple[str, ...], type_: str, base64_: bool, output_format: str | None) -> None:
    """Prints ids in hexadecimal, as SWHIDs, and in base64 as grpcurl takes and prints them.

    A FILE is hashed as git does, the URL of an origin (with --type origin) as Software Heritage does. Asks no gateway.
    """
    rows = [_row(item, entity_of_swhid(item) or EntityType(type_), base64_) for item in items]
    print_rows(rows, columns_of(IdRow), output_format)


def _row(item: str, entity: EntityType, base64_: bool) -> IdRow:
    found = from_base64(item) if base64_ else id_of_item(item, entity)
    return IdRow(found.hex(), to_swhid(found, entity), to_base64(found))
