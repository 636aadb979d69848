"""What a dataset source is: it turns a location into records and a store of images."""

from collections.abc import Callable
from dataclasses import dataclass

from configs.registry import Registry
from ensemble.data.location import Location
from ensemble.data.records import Collection, ImageStore, Problem, Record, count_reasons

__all__ = [
    "SOURCES",
    "Collection",
    "DatasetSpec",
    "ImageStore",
    "Location",
    "Problem",
    "Record",
    "count_reasons",
    "register_source",
]


@dataclass(frozen=True)
class DatasetSpec:
    """A source: a layout of data on disk.

    Args:
        name: As in `--source`.
        summary: One line that says what it reads, for `--list-sources`.
        matches: Whether a location looks like this layout; looks at names and
            headers only. The first source that matches, by `priority`, is used.
        load: Reads the records; decodes no image. Raises DataError.
        priority: Sources with a lower number are asked first.
    """

    name: str
    summary: str
    matches: Callable[[Location], bool]
    load: Callable[[Location], Collection]
    priority: int = 50


SOURCES: Registry[DatasetSpec] = Registry("source", package="ensemble.data.sources")


def register_source(spec: DatasetSpec) -> DatasetSpec:
    """Registers a source of data, so that `--source` and `auto` know it."""
    return SOURCES.register(spec)
