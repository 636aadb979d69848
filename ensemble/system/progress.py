"""Progress bars: images per second and time left, on a terminal only."""

from tqdm import tqdm


def progress_bar(label: str, total: int) -> tqdm:
    """Returns a bar that counts images, silent unless standard error is a terminal."""
    return tqdm(
        total=total,
        desc=label,
        unit=" images",
        disable=None,
        leave=False,
        smoothing=0.1,
        bar_format="{desc}: {percentage:3.0f}% {bar:24} {n_fmt}/{total_fmt}, {rate_fmt}, "
        "{remaining} left{postfix}",
    )
