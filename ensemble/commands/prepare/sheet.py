"""The contact sheet of a face set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble.commands.prepare.tables import PreparedPhoto
from ensemble.data.labels import fold

_ROW = 10  # faces in a row
_ROWS = 8  # rows of faces without classes
_MAX_SIDE = 150  # pixels of a face


def draw_sheet(output: Path, photos: Sequence[PreparedPhoto]) -> bytes:
    """Returns evenly sampled faces of a set as PNG, one row per class."""
    from ensemble.plots.figures import png
    from ensemble.plots.pictures import plot_contact_sheet

    by_label: dict[str, list[str]] = {}
    for photo in sorted(photos, key=lambda photo: fold(photo.label)):
        paths = by_label.setdefault(photo.label, [])
        paths += [face.path for face in photo.faces]
    if set(by_label) == {""}:
        chosen = _choose(by_label[""], _ROW * _ROWS)
        starts = range(0, len(chosen), _ROW)
        by_label = {f"from {start + 1}": chosen[start : start + _ROW] for start in starts}
    rows = {
        label: [_thumbnail(output / path) for path in _choose(paths, _ROW)]
        for label, paths in by_label.items()
    }
    return png(plot_contact_sheet(rows, f"Faces of {output.resolve().name}"))


def _choose(paths: Sequence[str], count: int) -> list[str]:
    """Returns `count` of the paths, evenly spread, or all of them."""
    places = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[place] for place in places]


def _thumbnail(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.thumbnail((_MAX_SIDE, _MAX_SIDE))
        return np.array(image)
