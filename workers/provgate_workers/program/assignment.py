"""Decides which ranges a program prefers, and which process hosts which range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from provgate_broker.settings import SECTION
from provgate_broker.topology.policy import Exchange, RangePolicy
from provgate_runtime import ConfigurationError

_PATH: Final = f"provenance.{SECTION}.preferred"


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """A range of an exchange: what one range worker handles."""

    exchange: Exchange
    number: int

    def __str__(self) -> str:
        return f"{self.exchange}.{self.number:x}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The ranges that one process hosts.

    Attributes:
        preferred: those that are consumed at once.
        standby: those that are left to other programs first.
    """

    preferred: tuple[Range, ...]
    standby: tuple[Range, ...]


def all_ranges(policy: RangePolicy) -> list[Range]:
    """Returns all ranges."""
    return [Range(exchange, number) for exchange in Exchange for number in policy.ranges(exchange)]


def preferred_ranges(texts: Sequence[str], policy: RangePolicy) -> frozenset[Range]:
    """Returns the ranges that a setting prefers: all if it is empty.

    Args:
        texts: each `<exchange>`, `<exchange>.<number>` or `<exchange>.<first>-<last>`, numbers in hexadecimal.
        policy: says which ranges there are.

    Raises:
        ConfigurationError: a text is not one of these, or names a range that does not exist.
    """
    if not texts:
        return frozenset(all_ranges(policy))
    return frozenset(each for index, text in enumerate(texts) for each in _parsed(text, policy, f"{_PATH}[{index}]"))


def deal(policy: RangePolicy, preferred: frozenset[Range], process_count: int) -> list[Assignment]:
    """Deals all ranges out to processes, so that no two processes differ by more than one range of either kind.

    There are fewer processes than `process_count` if there are fewer ranges.
    """
    ranges = all_ranges(policy)
    process_count = min(process_count, len(ranges))
    # Dealt one after the other, so that the second kind makes up for an uneven end of the first.
    cards = [card for card in ranges if card in preferred] + [card for card in ranges if card not in preferred]
    hands = [cards[number::process_count] for number in range(process_count)]
    return [
        Assignment(
            preferred=tuple(card for card in hand if card in preferred),
            standby=tuple(card for card in hand if card not in preferred),
        )
        for hand in hands
    ]


def _parsed(text: str, policy: RangePolicy, path: str) -> list[Range]:
    name, dot, numbers = text.partition(".")
    if name not in tuple(Exchange):
        raise ConfigurationError(f"{path}: {text!r} starts with no exchange; there are {', '.join(Exchange)}")
    exchange = Exchange(name)
    known = policy.ranges(exchange)
    if not dot:
        return [Range(exchange, number) for number in known]
    first_text, _, last_text = numbers.partition("-")
    try:
        first = int(first_text, 16)
        last = int(last_text or first_text, 16)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {text!r} is not <exchange> or <exchange>.<first>-<last>") from error
    if first > last or last not in known:
        raise ConfigurationError(f"{path}: {text!r} is not in the ranges of {exchange}, 0-{known[-1]:x}")
    return [Range(exchange, number) for number in range(first, last + 1)]
