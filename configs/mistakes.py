"""Mistakes in settings, told in words: the place, the rule, the value received."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError

from configs.registry import near_miss


def describe(
    error: ValidationError, schema: type[BaseModel], prefix: Sequence[str] = ()
) -> Iterator[str]:
    """Yields one sentence for each mistake.

    Args:
        error: What pydantic found, all at once.
        schema: The model that was read.
        prefix: Dotted place of that model in the settings.

    Example:
        `training.learning_rate` must be greater than 0. Received: -1.
    """
    told = set()
    for mistake in error.errors():
        place = ".".join([*prefix, *_place(mistake["loc"])])
        if mistake["type"] == "extra_forbidden":
            sentence = _unknown_setting(place, schema, mistake["loc"])
        elif mistake["type"] == "value_error":
            sentence = f"`{place}`: {mistake['ctx']['error']}."
        else:
            _, should, rule = mistake["msg"].partition(" should ")
            verb = f"must {rule}" if should else f"is wrong: {mistake['msg']}"
            sentence = f"`{place}` {verb}. Received: {mistake['input']}."
        if sentence not in told:  # a union reports a mistake once for each of its members
            told.add(sentence)
            yield sentence


def _place(loc: Sequence[str | int]) -> list[str]:
    """Drops what pydantic adds to a place for unions: the names of types."""
    return [str(part) for part in loc if str(part) not in {"str", "dict[str,str]"}]


def _unknown_setting(place: str, schema: type[BaseModel], loc: Sequence[str | int]) -> str:
    siblings = list(_fields_at(schema, loc[:-1]))
    stem = place.removesuffix(str(loc[-1]))
    hint = near_miss(str(loc[-1]), siblings)
    return (
        f"Unknown setting `{place}`."
        + (f" Did you mean `{stem}{hint}`?" if hint else "")
        + f" Known here: {', '.join(sorted(siblings)) or 'none'}."
    )


def _fields_at(schema: type[BaseModel], loc: Sequence[str | int]) -> Iterator[str]:
    for part in loc:
        info = schema.model_fields.get(str(part))
        if info is None or not isinstance(info.annotation, type):
            return
        schema = info.annotation
    yield from schema.model_fields
