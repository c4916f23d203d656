"""The former place of `watched`."""

from provgate_runtime.watch.port import WatchAddress, WatchPortError, watched

__all__ = ["WatchAddress", "WatchPortError", "watched"]
