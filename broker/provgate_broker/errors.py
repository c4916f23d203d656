"""What the broker's room raises."""

from __future__ import annotations


class BrokerError(Exception):
    """The base of everything that this package raises."""


class MalformedPackageError(BrokerError):
    """A body is not a package of its queue: it cannot be decoded, or a row is not one that can be kept.

    The text names the first fault and never quotes the body.
    """


class ConnectionLostError(BrokerError):
    """The connection to the broker is gone or was refused. Connecting again may help.

    Attributes:
        reply_code: the broker's AMQP reply code; None where the broker said nothing.
    """

    def __init__(self, message: str, reply_code: int | None = None) -> None:
        super().__init__(message)
        self.reply_code = reply_code


class NotPermittedError(BrokerError):
    """The broker's user lacks a right. The text says for what, and what to do."""


class TopologyError(BrokerError):
    """The broker's exchanges and queues are not what this program expects. The text says what to do."""


class MissingTopologyError(TopologyError):
    """Queues that this program expects are not there. The text says what to do.

    Attributes:
        partial: whether some of the same kind are there: the set-up is under way, or made others.
    """

    def __init__(self, message: str, *, partial: bool) -> None:
        super().__init__(message)
        self.partial = partial
