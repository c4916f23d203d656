"""The former place of names that are in `provgate_broker.settings`."""

from provgate_broker.settings import PATH, amqp_parameters, range_policy

__all__ = ["PATH", "amqp_parameters", "range_policy"]
