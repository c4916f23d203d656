"""`provgate-workers dlq`: lists, shows, replays and drops dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final

import click

from provgate_broker.dead_letters.messages import DeadLetter
from provgate_broker.dead_letters.queue import DeadLetterQueue, Replayer, ReplayError, open_dead_letter_queue
from provgate_broker.errors import BrokerError
from provgate_broker.settings import BROKER_FIELDS, RabbitMqSettings, amqp_parameters
from provgate_broker.topology.policy import Operation, WriteMethod, parse_binding_key
from provgate_broker.wire.package import Nack, claimed_row_count, decode_package
from provgate_runtime import setting_options
from provgate_runtime.counted import counted
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import to_date
from provgate_workers.cli.options import ENV_PREFIX, loaded_settings, program_options
from provgate_workers.errors import WorkerError


def summary(letter: DeadLetter) -> dict[str, object]:
    """Returns the fields by which an operator recognizes a dead letter."""
    return {
        "id": letter.id,
        "time": letter.time,
        "reason": letter.reason,
        "message": letter.message,
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "redelivered_count": letter.redelivered_count,
        "row_count": claimed_row_count(letter.delivery.body),
        "body_bytes": len(letter.delivery.body),
    }


def details(letter: DeadLetter) -> dict[str, object]:
    """Returns all of a dead letter. Ids are hexadecimal, paths text in which bytes that are not UTF-8 are escaped."""
    delivery = letter.delivery
    properties = {
        "content_type": delivery.content_type,
        "correlation_id": delivery.correlation_id,
        "reply_to": delivery.reply_to,
        "headers": _plain(delivery.headers),
    }
    try:
        operation, _ = parse_binding_key(letter.routing_key)
        rows = decode_package(delivery.body, operation)
    except BrokerError as error:
        return summary(letter) | properties | {"fault": str(error), "body_hex": delivery.body.hex()}
    return summary(letter) | properties | {"rows": [_plain(_with_dates(row, operation)) for row in rows]}


def _with_dates(row: Row, operation: Operation) -> tuple[object, ...]:
    """Returns a row with dates in place of microseconds, and the fields of a revision by name."""
    match operation.method:
        case WriteMethod.CONTENT_ADD | WriteMethod.DIRECTORY_ADD:
            entry_id, date = row
            return entry_id, _date(date)
        case WriteMethod.REVISION_ADD:
            entry_id, date, origin = row
            return entry_id, {"date": _date(date), "origin": origin}
    return row


def _date(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else to_date(microseconds)


def _plain(value: object) -> object:
    """Returns a value as JSON has it."""
    if isinstance(value, bytes):
        return value.hex() if len(value) == 20 else value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)


_BROKER_OPTIONS: Final = (*BROKER_FIELDS, "heartbeat")
_some_ids = click.argument("ids", nargs=-1, metavar="[ID...]")
_all_letters = click.option("--all", "all_letters", is_flag=True, help="All that wait now, instead of IDs.")


@click.group()
def dlq() -> None:
    """List, show, replay and drop dead letters.

    A dead letter is a package that could not be stored. Its reason is one of: malformed (its body is not a package
    of its queue), refused (the database refuses it as data), poison (a program died while it handled it alone),
    unexpected (storing it fails with an unknown error, each time).

    While one of these commands runs, others do not see the letters that it reads.
    """


@dlq.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX, only=_BROKER_OPTIONS)
@click.pass_context
def list_letters(context: click.Context, /, as_json: bool, **_options: object) -> None:
    """List the dead letters, oldest first. They stay where they are."""

    async def work(queue: DeadLetterQueue) -> None:
        async for letter in queue.letters():
            click.echo(json.dumps(summary(letter)) if as_json else _line(letter))

    _run(context, work)


@dlq.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX, only=_BROKER_OPTIONS)
@click.pass_context
def show(context: click.Context, /, ids: tuple[str, ...], **_options: object) -> None:
    """Show dead letters in full, as JSON: where from, why, properties, headers, and the rows or else the raw body.

    An ID is what `list` shows, or the start of it.
    """

    async def work(queue: DeadLetterQueue) -> None:
        async for letter in _chosen(queue, ids):
            click.echo(json.dumps(details(letter), indent=2))

    _run(context, work)


@dlq.command()
@_some_ids
@_all_letters
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX, only=_BROKER_OPTIONS)
@click.pass_context
def drop(context: click.Context, /, ids: tuple[str, ...], all_letters: bool, **_options: object) -> None:
    """Delete dead letters for good."""

    async def work(queue: DeadLetterQueue) -> None:
        async for letter in _chosen(queue, ids, all_letters=all_letters):
            letter.delivery.ack()
            click.echo(f"dropped {letter.id}")

    _check_choice(ids, all_letters)
    _run(context, work)


@dlq.command()
@_some_ids
@_all_letters
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Seconds for each."
)
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX, only=_BROKER_OPTIONS)
@click.pass_context
def replay(
    context: click.Context, /, ids: tuple[str, ...], all_letters: bool, timeout_s: float, **_options: object
) -> None:
    """Send dead letters to the workers again.

    A letter is deleted only when a worker has committed it. One that is refused again comes back as a new letter. One
    that no worker answers in time stays, and may be stored all the same. The exit code is 1 unless all are stored.
    """

    async def work(queue: DeadLetterQueue) -> None:
        replayer = Replayer(queue.parameters, timeout_s)
        async with replayer.running():
            letters = _chosen(queue, ids, all_letters=all_letters)
            failed = [letter.id async for letter in letters if not await _replayed(replayer, letter)]
        if failed:
            raise WorkerError(f"not stored: {', '.join(failed)}")

    _check_choice(ids, all_letters)
    _run(context, work)


async def _replayed(replayer: Replayer, letter: DeadLetter) -> bool:
    try:
        reply = await replayer.replay(letter)
    except ReplayError as error:
        click.echo(f"kept {letter.id}: {error}")
        return False
    if isinstance(reply, int) and reply < claimed_row_count(letter.delivery.body):
        click.echo(f"kept {letter.id}: a worker stored {reply} of its rows")
        return False
    letter.delivery.ack()
    if isinstance(reply, Nack):
        click.echo(f"refused again, as a new dead letter: {letter.id}: {reply.message}")
        return False
    click.echo(f"stored {letter.id}: {counted(reply, 'row')}")
    return True


async def _chosen(
    queue: DeadLetterQueue, ids: tuple[str, ...], *, all_letters: bool = False
) -> AsyncIterator[DeadLetter]:
    missing = set(ids)
    async for letter in queue.letters():
        matching = {prefix for prefix in ids if letter.id.startswith(prefix)}
        if all_letters or matching:
            missing -= matching
            yield letter
    if missing:
        raise WorkerError(f"there is no dead letter {', '.join(sorted(missing))}")


def _check_choice(ids: tuple[str, ...], all_letters: bool) -> None:
    if bool(ids) == all_letters:
        raise click.UsageError("give the IDs of dead letters, or --all")


def _line(letter: DeadLetter) -> str:
    row_count = claimed_row_count(letter.delivery.body)
    size = counted(row_count, "row") if row_count else counted(len(letter.delivery.body), "byte")
    message = " ".join(letter.message.split())
    line = f"{letter.id}  {letter.time}  {letter.reason:10}  {letter.routing_key}  {size}  {message}"
    # Anybody may have put it there: characters that control a terminal are not printed.
    return "".join(character if character.isprintable() else "?" for character in line)


def _run(context: click.Context, work: Callable[[DeadLetterQueue], Awaitable[None]]) -> None:
    parameters = amqp_parameters(loaded_settings(context))

    async def with_queue() -> None:
        async with open_dead_letter_queue(parameters) as queue:
            await work(queue)

    try:
        asyncio.run(with_queue())
    except BrokerError as error:
        raise WorkerError(f"the broker at {parameters.address}: {error}") from error
