"""Intervals in words, as the page tells them: from one end to the other."""

from ensemble.metrics.intervals import Interval


def percents(interval: Interval) -> str:
    """Returns the ends of an interval in per cent."""
    return f"{interval.low:.1%} to {interval.high:.1%}"


def shares(interval: Interval) -> str:
    """Returns the ends of an interval in 0..1."""
    return f"{interval.low:.3f} to {interval.high:.3f}"
