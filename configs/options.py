"""Options of a part, read from its function's signature: one declaration, checked before use."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model


def options_model(function: Callable[..., Any]) -> type[BaseModel]:
    """Returns a model of the keyword-only arguments of a function.

    Their annotations are the types and limits, their defaults the defaults, so
    that an option is declared once, where it is used.

    Example:
        >>> def crop(image, *, margin: float = 0.1): ...
        >>> options_model(crop)(margin="0.2").margin
        0.2
    """
    parameters = inspect.signature(function).parameters.values()
    fields: dict[str, Any] = {
        parameter.name: _field(parameter)
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return create_model(
        function.__name__,
        __config__=ConfigDict(extra="forbid"),
        __module__=function.__module__,
        **fields,
    )


def read_options(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options with their types mended ("0.3" to 0.3), those not given left out.

    Raises:
        pydantic.ValidationError: If an option is unknown or outside its limits;
            all such mistakes at once.
    """
    return options_model(function)(**options).model_dump(exclude_unset=True)


def _field(parameter: inspect.Parameter) -> tuple[Any, Any]:
    """Returns an option's type (none given: any) and its default (none given: it is required)."""
    kind, default = parameter.annotation, parameter.default
    return (
        Any if kind is parameter.empty else kind,
        ... if default is parameter.empty else default,
    )
