"""`provgate-workers dlq`: dead letters, for operators."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import click

from provgate_broker.aside import DeadLetter
from provgate_broker.configured import amqp_parameters
from provgate_broker.dead_letter_queue import DeadLetterQueue, Replayer, ReplayError, open_dead_letter_queue
from provgate_broker.errors import BrokerError
from provgate_broker.session import AmqpParameters
from provgate_broker.settings import BROKER_FIELDS, RabbitMqSettings
from provgate_broker.wire import Nack, claimed_row_count
from provgate_config import setting_options
from provgate_config.counted import counted
from provgate_workers.dead_letter_text import details, summary
from provgate_workers.errors import WorkerError
from provgate_workers.program_options import ENV_PREFIX, loaded_settings, program_options

_BROKER_OPTIONS: Final = (*BROKER_FIELDS, "heartbeat")


@click.group()
def dlq() -> None:
    """List, show, replay and drop dead letters.

    A dead letter is a package that could not be stored. Its reason is one of: malformed (the body is no package of its
    queue), refused (the database refuses it as data), poison (a program died while it handled it alone), unexpected
    (storing it fails in an unknown way, each time).

    While one of these commands runs, another does not see the letters that it looks at.
    """


@dlq.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, in place of a table.")
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX, only=_BROKER_OPTIONS)
@click.pass_context
def list_letters(context: click.Context, /, as_json: bool, **_options: Any) -> None:
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
def show(context: click.Context, /, ids: tuple[str, ...], **_options: Any) -> None:
    """Show dead letters in full, as JSON: where from, why, properties, headers, and the rows or else the raw body.

    An ID is what `list` shows, or the start of it.
    """

    async def work(queue: DeadLetterQueue) -> None:
        async for letter in _chosen(queue, ids):
            click.echo(json.dumps(details(letter), indent=2))

    _run(context, work)


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "all_letters", is_flag=True, help="All that wait now, in place of IDs.")
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX, only=_BROKER_OPTIONS)
@click.pass_context
def drop(context: click.Context, /, ids: tuple[str, ...], all_letters: bool, **_options: Any) -> None:
    """Delete dead letters for good."""

    async def work(queue: DeadLetterQueue) -> None:
        async for letter in _chosen(queue, ids, all_letters=all_letters):
            letter.delivery.ack()
            click.echo(f"dropped {letter.id}")

    _check_choice(ids, all_letters)
    _run(context, work)


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "all_letters", is_flag=True, help="All that wait now, in place of IDs.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Seconds for each."
)
@program_options
@setting_options(RabbitMqSettings, ENV_PREFIX, only=_BROKER_OPTIONS)
@click.pass_context
def replay(
    context: click.Context, /, ids: tuple[str, ...], all_letters: bool, timeout_s: float, **_options: Any
) -> None:
    """Send dead letters to the workers again.

    A letter leaves the dead letters only when a worker says that it is committed. One that is refused again comes back
    as a new letter. One that no worker answers in time stays, and may be stored all the same. Exit code 1 unless all
    are stored.
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
    # A stranger may have put it there: what moves a terminal's cursor is not passed on.
    return "".join(character if character.isprintable() else "?" for character in line)


def _run(context: click.Context, work: Callable[[DeadLetterQueue], Awaitable[None]]) -> None:
    parameters = amqp_parameters(loaded_settings(context))
    try:
        asyncio.run(_with_queue(parameters, work))
    except BrokerError as error:
        raise WorkerError(f"the broker at {parameters.address}: {error}") from error


async def _with_queue(parameters: AmqpParameters, work: Callable[[DeadLetterQueue], Awaitable[None]]) -> None:
    async with open_dead_letter_queue(parameters) as queue:
        await work(queue)
