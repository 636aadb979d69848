"""Figures in words, alike wherever they are told."""

from ensemble.metrics.intervals import Interval


def percents(interval: Interval) -> str:
    """Returns an interval of a share in per cent, in brackets."""
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def shares(interval: Interval) -> str:
    """Returns an interval of a share in 0..1, in brackets."""
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def plural(count: int, noun: str) -> str:
    """Returns a count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
