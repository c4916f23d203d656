"""The former place of `certificate_expiry`."""

from provgate_runtime.certificates import certificate_expiry

__all__ = ["certificate_expiry"]
