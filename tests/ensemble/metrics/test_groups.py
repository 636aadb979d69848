"""Laws of figures by group: those of scikit-learn on the group's images, and honest gaps."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from ensemble.metrics.groups import GroupReport, measure_groups
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.rendering import as_markdown
from ensemble.metrics.report import Report
from ensemble.metrics.report_sections import report_sections

SIZES = {"old": 200, "young": 400, "child": 12, "": 7}
CLASSES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def answers() -> tuple[list[str], np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    members = [name for name, size in SIZES.items() for _ in range(size)]
    labels = random.integers(0, 3, len(members))
    labels[:200] %= 2  # the old have no image of class c
    right = random.random(len(members)) < np.where(np.array(members) == "young", 0.9, 0.7)
    return members, labels, np.where(right, labels, random.integers(0, 3, len(members)))


@pytest.fixture(scope="module")
def groups(answers) -> GroupReport:
    members, labels, predicted = answers
    return measure_groups("age", members, labels, predicted, 3)


def test_each_groups_figures_are_those_of_scikit_learn(answers, groups):
    members, labels, predicted = answers
    assert [group.name for group in groups.groups] == ["child", "old", "young"]
    assert groups.ungrouped == 7
    for group in groups.groups:
        rows = np.array(members) == group.name
        present = sorted(set(labels[rows]))
        assert group.images == rows.sum() == SIZES[group.name]
        assert group.accuracy == pytest.approx(accuracy_score(labels[rows], predicted[rows]))
        assert group.macro_f1 == pytest.approx(
            f1_score(labels[rows], predicted[rows], labels=present, average="macro")
        )
        assert group.accuracy_interval.holds(group.accuracy)
        assert group.macro_f1_interval.holds(group.macro_f1)


def test_an_accuracys_interval_is_about_that_of_the_binomial(groups):
    young = groups.groups[2]
    half = 1.96 * np.sqrt(young.accuracy * (1 - young.accuracy) / young.images)

    assert young.accuracy_interval.low == pytest.approx(young.accuracy - half, abs=0.01)
    assert young.accuracy_interval.high == pytest.approx(young.accuracy + half, abs=0.01)


def test_the_largest_gap_is_between_groups_of_30_images_or_more(groups):
    gap = groups.accuracy_gap
    child, old, young = groups.groups
    spread = np.sqrt(sum(g.accuracy * (1 - g.accuracy) / g.images for g in (old, young)))

    assert (gap.best, gap.worst) == ("young", "old")
    assert gap.difference.value == pytest.approx(young.accuracy - old.accuracy)
    assert gap.difference.interval.low == pytest.approx(
        gap.difference.value - 1.96 * spread, abs=0.015
    )
    assert gap.difference.conclusion == "better"
    assert groups.small == [child]


def test_without_two_large_groups_there_is_no_gap():
    labels = np.zeros(40, int)
    groups = measure_groups("sex", ["f"] * 30 + ["m"] * 10, labels, labels, 2)

    assert groups.accuracy_gap is None
    assert groups.macro_f1_gap is None
    with pytest.raises(ValueError, match="No image has a group"):
        measure_groups("sex", [""] * 40, labels, labels, 2)


def test_a_report_shows_groups_and_warns_of_small_ones(answers, groups):
    _, labels, predicted = answers
    names = [f"{index}.png" for index in range(len(labels))]
    plain = Report("run", Predictions(CLASSES, names, labels, np.eye(3)[predicted]))
    report = replace(plain, groups=groups)
    text, content = as_markdown(report_sections(report)), json.loads(report.as_json())

    assert json.loads(plain.as_json())["groups"] is None
    assert "## Groups" not in as_markdown(report_sections(plain))
    assert [group["images"] for group in content["groups"]["groups"]] == [12, 200, 400]
    assert content["groups"]["accuracy_gap"]["best"] == "young"
    assert any("groups child (12) by age" in warning for warning in report.warnings)
    assert Report.from_dict(content, report.predictions).groups == groups
    assert "7 images of no known group" in text
    assert "young over old" in text
