"""Progress bars: images a second and time left on a terminal, silence elsewhere."""

from tqdm import tqdm


def progress_bar(label: str, total: int) -> tqdm:
    """Returns a bar that counts images; it stays silent where nobody watches.

    Args:
        label: What is being done, such as "Reading images".
        total: How many images there are.
    """
    return tqdm(
        total=total,
        desc=label,
        unit=" images",
        disable=None,  # silent unless standard error is a terminal
        leave=False,
        smoothing=0.1,
        bar_format="{desc}: {percentage:3.0f}% {bar:24} {n_fmt}/{total_fmt}, {rate_fmt}, "
        "{remaining} left{postfix}",
    )
