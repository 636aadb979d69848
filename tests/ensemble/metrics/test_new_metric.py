"""A metric that is registered appears everywhere, with its interval."""

import csv
import html
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.files import write_config
from configs.schema import ExperimentConfig
from configs.search import SearchExperiment
from ensemble.cli.checks import check_settings
from ensemble.commands.compare.__main__ import main as compare
from ensemble.commands.report.__main__ import main as report_page
from ensemble.metrics.card import write_card
from ensemble.metrics.evaluating import write_results
from ensemble.metrics.metrics import METRICS, ConfusionMetric, Metric, objectives, register_metric
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.rendering import as_markdown
from ensemble.metrics.report import Report
from ensemble.metrics.report_sections import report_sections, summarize
from ensemble.runs.run import Run

CLASSES = ["neutral", "happy", "sad"]


def informedness(confusion: np.ndarray) -> np.ndarray:
    """Balanced accuracy on a scale on which guessing is 0."""
    recalls = np.diagonal(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=-1)
    return (3 * recalls.mean(axis=-1) - 1) / 2


@pytest.fixture
def metric() -> Iterator[ConfusionMetric]:
    metric = ConfusionMetric("informedness", "Informedness", informedness, headline=True)
    register_metric(metric)
    yield metric
    del METRICS["informedness"]


def make_report(correct: int) -> Report:
    labels = np.arange(300) % 3
    predicted = np.where(np.arange(300) < correct, labels, (labels + 1) % 3)
    names = [f"{row}.png" for row in range(300)]
    probabilities = 0.1 + 0.7 * np.eye(3)[predicted]
    return Report("mine", Predictions(CLASSES, names, labels, probabilities), "happy")


def write_run(folder: Path, correct: int, seed: int) -> Path:
    run, config = Run(folder), ExperimentConfig.model_validate({"seed": seed})
    run.write("config.yaml", write_config(config.model_dump(mode="json", exclude_none=True)))
    write_results(run, make_report(correct))
    return folder


def test_it_is_in_every_form_of_a_report(metric):
    report = make_report(240)
    score = report.metrics.scores["informedness"]
    value, interval, baseline = metric.show(score)

    assert score.value == pytest.approx(0.7)
    assert score.interval is not None
    assert score.interval.holds(0.7)
    assert baseline == "0.000"
    content = json.loads(report.as_json())
    assert content["metrics"]["informedness"] == score.value
    assert content["metrics"]["baseline"]["informedness"] == pytest.approx(0)
    assert content["intervals"]["informedness"]["low"] == score.interval.low
    assert Report.from_dict(content, report.predictions).to_dict() == content
    card = write_card(ExperimentConfig(), report)
    for text in (as_markdown(report_sections(report)), card, summarize(report)):
        line = next(line for line in text.splitlines() if "Informedness" in line)
        assert value in line
        assert interval in line


def test_it_is_in_a_comparison_and_on_the_page(metric, tmp_path, capsys):
    runs = [write_run(tmp_path / f"run{seed}", 230 + 10 * seed, seed) for seed in (1, 2)]
    value, interval, _ = metric.show(make_report(240).metrics.scores["informedness"])

    assert compare(["--no-timing", "--output", str(tmp_path / "compared"), *map(str, runs)]) == 0

    first = next(line for line in capsys.readouterr().out.splitlines() if "run1" in line)
    assert f"{value} {interval}" in first
    with (tmp_path / "compared" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["informedness"]) == pytest.approx(0.7)
    assert float(rows[1]["informedness_low"]) < 0.75 < float(rows[1]["informedness_high"])

    assert report_page([str(runs[0]), "--output", str(tmp_path / "page.html")]) == 0

    page = html.unescape((tmp_path / "page.html").read_text())
    assert f'Informedness</th><td class="number">{value}</td>' in page
    assert interval in page


def test_one_that_is_not_defined_is_left_out(tmp_path, capsys):
    register_metric(Metric("nothing", "Nothing", lambda *_: None, headline=True))
    try:
        runs = [write_run(tmp_path / f"run{seed}", 230, seed) for seed in (1, 2)]

        assert "Nothing" not in summarize(make_report(230))
        assert compare(["--no-timing", "--output", str(tmp_path), *map(str, runs)]) == 0
        assert json.loads(make_report(230).as_json())["metrics"]["nothing"] is None
    finally:
        del METRICS["nothing"]


def test_a_search_can_optimize_it(metric):
    search = {"objective": "val_informedness", "spaces": {"training.epochs": [1, 2]}}

    assert objectives()["val_informedness"] == "max"
    config = check_settings({"search": search}, SearchExperiment)
    assert config.search.objective == "val_informedness"


def test_an_unknown_objective_is_an_error():
    search = {"objective": "val_macro_f2", "spaces": {"training.epochs": [1, 2]}}

    with pytest.raises(ConfigError, match=r"Unknown objective 'val_macro_f2'\. Did you mean"):
        check_settings({"search": search}, SearchExperiment)


def test_a_name_is_registered_once(metric):
    with pytest.raises(ConfigError, match="'informedness' is registered already"):
        register_metric(metric)
