"""Fields of settings: their paths, the options of parts, and messages for invalid values."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from configs.registry import near_miss
from configs.schema import Part


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """Returns the schema of a field that has settings below it, None for a leaf."""
    kind: Any = info.annotation
    is_schema = isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Part
    return kind if is_schema else None


def leaf_paths(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields the dotted path of each leaf of a schema, such as `training.learning_rate`."""
    for name, info in schema.model_fields.items():
        section = section_of(info)
        if section is None:
            yield f"{prefix}{name}"
        else:
            yield from leaf_paths(section, f"{prefix}{name}.")


def put_leaf(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets a leaf of nested settings; a part given by its bare name becomes a mapping.

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


def options_model(function: Callable[..., Any]) -> type[BaseModel]:
    """Returns a model of the keyword-only arguments of a function, which are a part's options.

    Example:
        >>> def crop(image, *, margin: float = 0.1): ...
        >>> options_model(crop)(margin="0.2").margin
        0.2
    """
    fields: dict[str, Any] = {
        parameter.name: (
            Any if parameter.annotation is parameter.empty else parameter.annotation,
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return create_model(
        function.__name__,
        __config__=ConfigDict(extra="forbid"),
        __module__=function.__module__,
        **fields,
    )


def read_options(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options given, converted to their types ("0.3" to 0.3).

    Raises:
        pydantic.ValidationError: If options are unknown or outside their limits.
    """
    return options_model(function)(**options).model_dump(exclude_unset=True)


def describe_errors(
    error: ValidationError, schema: type[BaseModel], prefix: Sequence[str] = ()
) -> list[str]:
    """Returns one sentence per invalid setting: place, rule and value received.

    Args:
        error: What pydantic found, all at once.
        schema: The model that was read.
        prefix: Dotted place of that model in the settings.

    Example:
        `training.learning_rate` must be greater than 0. Received: -1.
    """
    sentences = []
    for found in error.errors():
        # Unions add the names of their types to a place.
        parts = [str(part) for part in found["loc"] if part not in {"str", "dict[str,str]"}]
        place = ".".join([*prefix, *parts])
        if found["type"] == "extra_forbidden":
            sentences.append(_describe_unknown(place, schema, found["loc"]))
        elif found["type"] == "value_error":
            sentences.append(f"`{place}`: {found['ctx']['error']}.")
        else:
            _, should, rule = found["msg"].partition(" should ")
            verb = f"must {rule}" if should else f"is wrong: {found['msg']}"
            sentences.append(f"`{place}` {verb}. Received: {found['input']}.")
    return list(dict.fromkeys(sentences))  # a union reports an error for each of its members


def _describe_unknown(place: str, schema: type[BaseModel], loc: Sequence[str | int]) -> str:
    section: Any = schema
    for part in loc[:-1]:
        info = getattr(section, "model_fields", {}).get(str(part))
        section = info.annotation if info else None
    known = sorted(getattr(section, "model_fields", {}))
    close = near_miss(str(loc[-1]), known)
    hint = f" Did you mean `{place.removesuffix(str(loc[-1]))}{close}`?" if close else ""
    return f"Unknown setting `{place}`.{hint} Known here: {', '.join(known) or 'none'}."
