"""The errors of the broker package."""

from __future__ import annotations


class BrokerError(Exception):
    """The base of all errors of this package."""


class MalformedPackageError(BrokerError):
    """A body is not a package of its queue: it cannot be decoded, or a row is invalid.

    The text names the first fault and never quotes the body.
    """


class ConnectionLostError(BrokerError):
    """The connection to the broker broke or was refused. Another attempt may succeed.

    Attributes:
        reply_code: the broker's AMQP reply code; None if the broker sent none.
    """

    def __init__(self, message: str, reply_code: int | None = None) -> None:
        super().__init__(message)
        self.reply_code = reply_code


class NotPermittedError(BrokerError):
    """The broker's user lacks a right. The text names the right and what to do."""


class TopologyError(BrokerError):
    """The broker's exchanges and queues differ from what this program expects. The text says what to do."""


class MissingTopologyError(TopologyError):
    """Queues are missing. The text says what to do.

    Attributes:
        partial: whether other queues of the same operation exist: set-up has not finished, or used other range counts.
    """

    def __init__(self, message: str, *, partial: bool) -> None:
        super().__init__(message)
        self.partial = partial
