"""Laws of options: a function's signature is their only declaration."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from configs.fields import options_model, read_options


def crop(
    image: object,
    *,
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    corner: Literal["left", "right"] = "left",
    rounds: int = 1,
) -> None:
    """A part of this test; `image` is what it works on, not an option."""


def bare(image: object) -> None:
    """A part without options."""


def test_keyword_only_arguments_are_the_options():
    assert set(options_model(crop).model_fields) == {"margin", "corner", "rounds"}
    assert options_model(bare).model_fields == {}


def test_defaults_are_those_of_the_signature():
    assert options_model(crop)().model_dump() == {"margin": 0.1, "corner": "left", "rounds": 1}


def test_texts_become_the_types_declared():
    assert read_options(crop, {"margin": "0.2", "rounds": "3"}) == {"margin": 0.2, "rounds": 3}


def test_options_not_given_are_left_to_the_function():
    assert read_options(crop, {"corner": "right"}) == {"corner": "right"}
    assert read_options(crop, {}) == {}


@pytest.mark.parametrize(
    "options",
    [{"margin": 1}, {"margin": "wide"}, {"corner": "top"}, {"rounds": 1.5}, {"image": 0}],
)
def test_a_value_outside_its_limits_is_refused(options):
    with pytest.raises(ValidationError):
        read_options(crop, options)


def test_all_mistakes_are_found_at_once():
    with pytest.raises(ValidationError) as error:
        read_options(crop, {"margin": -1, "corner": "top", "margins": 0})

    assert {mistake["loc"] for mistake in error.value.errors()} == {
        ("margin",),
        ("corner",),
        ("margins",),
    }


def test_an_option_without_a_type_takes_any_value():
    def resize(image: object, *, side=3) -> None: ...

    assert read_options(resize, {"side": [1, 2]}) == {"side": [1, 2]}


def test_an_option_without_a_default_is_asked_for():
    def resize(image: object, *, side: int) -> None: ...

    with pytest.raises(ValidationError, match="side"):
        read_options(resize, {})
