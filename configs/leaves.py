"""Leaves of settings by dotted path, such as `training.learning_rate`."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.schema import Part


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """Returns the schema of a field that has settings below it, None for a leaf."""
    kind: Any = info.annotation
    is_schema = isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Part
    return kind if is_schema else None


def leaf_paths(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields the dotted path of each leaf of a schema."""
    for name, info in schema.model_fields.items():
        section = section_of(info)
        if section is None:
            yield f"{prefix}{name}"
        else:
            yield from leaf_paths(section, f"{prefix}{name}.")


def put_leaf(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets a value at a path; a part's bare name makes room for its options.

    Args:
        values: Nested settings, which are changed.
        path: Sections, then the leaf.
        value: What to put there.
    """
    *sections, leaf = path
    for section in sections:
        inner = values.get(section)
        if not isinstance(inner, dict):
            inner = {} if inner is None else {"name": inner}
            values[section] = inner
        values = inner
    values[leaf] = value
