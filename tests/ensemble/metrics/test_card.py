import numpy as np
import pytest

from branches.registry import BRANCHES
from configs.schema import ExperimentConfig
from ensemble.experiment import fit
from ensemble.metrics.card import write_card
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.report import Report

CLASSES = ("calm", "sad|blue")
LABELS = np.array([0, 0, 0, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])


def card(**model: object) -> str:
    config = ExperimentConfig.model_validate(
        {
            "data": {"merge": {"sad|blue": ["sad", "blue"]}, "image_size": 48},
            "model": {"branches": ["vgg16", "densenet121"], **model},
        }
    )
    report = Report(
        subject="mine on faces, validation",
        predictions=Predictions(CLASSES, "abcd", LABELS, PROBABILITIES),
        majority="calm",
        facts={"Data": "faces, 10 training images"},
    )
    return write_card(config, report)


def test_a_card_lists_classes_data_and_metrics():
    text = card()

    assert "In this order: calm, sad\\|blue. Merged: sad\\|blue is sad, blue." in text
    assert "**Data**: faces, 10 training images" in text
    assert "48 x 48 pixels" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    # By hand: 3 of 4 are right; 2 of 3 calm ones, the one sad one.
    assert any("Accuracy" in line and line.count("75.00%") == 2 for line in lines)  # as always calm
    assert any("calm" in line and "66.7%" in line for line in lines)
    assert "Majority class (calm)" in text


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("imagenet", BRANCHES.get("vgg16").weights_licence),
        ("random", "none, trained from random weights"),
        ("mine.h5", "those of the file's owner"),
    ],
)
def test_a_card_lists_the_licence_of_each_branchs_weights(weights, told):
    text = card(weights={"vgg16": weights, "densenet121": "imagenet"})

    row = next(line for line in text.splitlines() if line.startswith("| vgg16"))
    assert told in row
    assert weights in row
    assert str(BRANCHES.get("densenet121").weights_licence) in text


def test_a_card_states_what_the_law_restricts():
    text = card()

    for words in ("Art. 5(1)(f)", "workplace", "education", "(EU) 2024/1689", "an expression, not"):
        assert words in text


def test_every_run_has_its_card(make_config):
    run = fit(make_config()).run

    text = (run.folder / "card.md").read_text("utf-8")
    assert text.startswith(f"# Model card: {run.name} on colours, validation")
    assert "In this order: blue, red." in text
