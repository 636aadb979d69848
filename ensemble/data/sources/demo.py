"""The data set that needs no download: each synthetic face is rendered when it is read."""

from collections.abc import Mapping

import numpy as np

from ensemble.data.registry import Collection, DatasetSpec, Location, Record, register_source
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face

FACES_PER_CLASS = {"train": 100, "validation": 50}
_SEED = 1978


class DrawnFaces:
    """Renders each record's face from a seed of its own.

    Args:
        seeds: Record to seed; the record's label is the expression.
    """

    def __init__(self, seeds: Mapping[Record, list[int]]) -> None:
        self._faces = {record.name: (record.label, seed) for record, seed in seeds.items()}

    def read(self, name: str) -> np.ndarray:
        """Returns pixels of shape `(96, 96, 3)`, uint8: for one name always the same.

        Raises:
            FileNotFoundError: If no record has that name.
        """
        if name not in self._faces:
            raise FileNotFoundError(f"the demo has no face {name!r}")
        expression, seed = self._faces[name]
        return draw_face(expression, np.random.default_rng(seed))


def load_demo(_: Location) -> Collection:
    """Lists the faces, with names such as `train/happy/0012.png`."""
    seeds = {
        Record(f"{split}/{expression}/{number:04}.png", expression, split): [_SEED, i, j, number]
        for i, (split, count) in enumerate(FACES_PER_CLASS.items())
        for j, expression in enumerate(EXPRESSIONS)
        for number in range(count)
    }
    return Collection(DrawnFaces(seeds), list(seeds), synthetic=True)


register_source(
    DatasetSpec(
        name="demo",
        summary="synthetic faces with eight expressions; used where no --data is given",
        matches=lambda location: not location.roots,
        load=load_demo,
        priority=0,
    )
)
