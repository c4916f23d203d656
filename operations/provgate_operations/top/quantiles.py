"""Latencies out of histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Returns below which value a share of what was observed is, interpolated within a bucket as PromQL does.

    Args:
        buckets: how many were observed up to each upper bound, all below it included.
        share: from 0 to 1.

    Returns:
        None where nothing was observed. Of what is beyond the last finite bound, that bound.
    """
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    rank, lower_bound, below = share * total, 0.0, 0.0
    for bound in sorted(buckets):
        if math.isinf(bound):
            break
        if buckets[bound] >= rank:
            within = buckets[bound] - below
            return bound if within <= 0 else lower_bound + (bound - lower_bound) * (rank - below) / within
        lower_bound, below = bound, buckets[bound]
    return lower_bound
