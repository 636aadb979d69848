"""Laws of the page: it shows what the run's files hold, needs nothing, and runs no name."""

from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, Tab, open_tab
from PIL import Image

from configs.files import write_config
from configs.schema import ExperimentConfig
from ensemble.commands.report.__main__ import main
from ensemble.data.registry import Problem
from ensemble.metrics.card import write_card
from ensemble.metrics.evaluating import write_results
from ensemble.metrics.groups import measure_groups
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.report import Report, TrainingSummary
from ensemble.runs.run import Run

HOSTILE = "<script>alert(1)</script>"
CLASSES = ["happy & glad", HOSTILE, '"><img src=//x onerror=y>']
IMAGES = 90
LABELS = np.arange(IMAGES) % 3
VOID = {"meta", "link", "img"}
MEMBERS = ["<b>old</b>"] * 45 + ["young"] * 45

WriteRun = Callable[..., Path]


def evaluate(
    correct: int, prefix: str = "", temperature: float = 1.0, members: Sequence[str] = ()
) -> Report:
    """Returns a report on predictions of which the first ones are correct."""
    predicted = np.where(np.arange(IMAGES) < correct, LABELS, (LABELS + 1) % 3)
    probabilities = np.full((IMAGES, 3), 0.1)
    probabilities[np.arange(IMAGES), predicted] = 0.8
    names = [f"{prefix}{label}/{row}.png" for row, label in enumerate(LABELS)]
    return Report(
        subject=f"mine {HOSTILE} on faces, validation",
        predictions=Predictions(CLASSES, names, LABELS, probabilities),
        majority=CLASSES[0],
        temperature=temperature,
        same_images=True,
        training=TrainingSummary(3, 2, "val_accuracy"),
        facts={"Data": f"faces {HOSTILE}"},
        problems=[Problem(f"{HOSTILE}.png", "not an image")],
        groups=measure_groups("age", members, LABELS, predicted, 3) if members else None,
    )


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes what a training keeps, without one; the images are there too."""
    colours = tmp_path / "colours"
    for row, label in enumerate(LABELS):
        path = colours / str(label) / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (0, int(label) * 80, row)).save(path)

    def write(
        name: str,
        correct: int = 60,
        *,
        prefix: str = "",
        branch: str = "vgg16",
        temperature: float = 1.0,
        members: Sequence[str] = (),
    ) -> Path:
        run = Run(tmp_path / "runs" / name)
        values = {"data": {"root": [colours], "image_size": 32}, "model": {"branches": [branch]}}
        config = ExperimentConfig.model_validate(values)
        report = evaluate(correct, prefix, temperature, members)
        run.write("config.yaml", write_config(config.model_dump(mode="json", exclude_none=True)))
        write_results(run, report)
        header = ["epoch", "phase", "accuracy", "val_accuracy", "loss", "val_loss"]
        epochs: list[list[object]] = [[1, "head", 0.5, 0.4, 1.2, 1.3], [2, "head", 0.7, 0.6, 1, 1]]
        run.write_table("history.csv", header, [*epochs, [3, "images", 0.9, 0.5, "nan", 1.4]])
        rows = [("t.png", CLASSES[0], "train")]
        names = report.predictions.names
        rows += [(name, CLASSES[LABELS[row]], "validation") for row, name in enumerate(names)]
        run.write_table("split.csv", ["path", "label", "split"], rows)
        run.write_table(
            "duplicates.csv",
            ["path", "split", "repeats", "in", "kind"],
            [(f"{HOSTILE}.png", "train", "1.png", "validation", "exact")],
        )
        run.write_json("environment.json", {"command": ["train.py", HOSTILE], "seed": 7})
        run.write("card.md", write_card(config, report))
        return run.folder

    return write


class Page(HTMLParser):
    """What a page holds; it must be well formed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        assert self._open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:  # as in <img ... />
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.texts.append(data)


def open_page(*folders: Path) -> Page:
    path = folders[0].parent / "page.html"
    assert main([*map(str, folders), "--output", str(path)]) == 0
    return Page(path)


def test_the_page_shows_what_the_files_hold(write_run):
    page = open_page(write_run("mine"))

    scores = evaluate(60).metrics.scores
    shown = [
        f"Accuracy 66.67% {scores['accuracy'].interval:.1%} 33.33%",
        f"Macro-F1 {scores['macro_f1'].value:.3f} {scores['macro_f1'].interval:.3f}",
        "the weights are those of epoch 2",
        "Fine-tuning",
        "1 image could not be used",
        "1 of train in validation too (exact)",
        "train.py",
        "image_size: 32",
        "Intended use",
    ]
    assert [text for text in shown if text not in page.text] == []
    assert page.tags.count("figure") == 24
    pictures = [value for name, value in page.attributes if name == "src"]
    assert all(value.startswith("data:image/jpeg;base64,") for value in pictures)


def test_figures_have_a_title_and_the_numbers_of_the_files(write_run):
    page = open_page(write_run("mine", members=MEMBERS))

    assert page.tags.count("svg") == page.tags.count("title") - 1 == 6  # one is the page's
    for title in (
        "F1 and recall of each class with 95 % intervals",
        "Accuracy and macro-F1 by age with 95 % intervals",
        "Confusion matrix: counts, and proportions of each true class",
        "Reliability diagram: accuracy and number of images by confidence",
        "Proportion of mistakes among the most confident images",
        "Accuracy and loss over 3 epochs; epoch 2 is the best",
    ):
        assert title in page.texts
    assert "60.0% at epoch 2" in page.text


def test_a_name_from_the_data_is_shown_as_text(write_run):
    page = open_page(write_run("mine", members=MEMBERS))

    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "onerror" not in {name for name, _ in page.attributes}
    assert HOSTILE in page.text
    assert "<b>old</b>" in page.text
    links = [value for name, value in page.attributes if name in {"href", "src", "xlink:href"}]
    assert all(value.startswith(("#", "data:")) for value in links)


def test_groups_are_shown_where_there_are_some(write_run):
    plain = open_page(write_run("plain"))
    full = open_page(write_run("full", members=MEMBERS))

    assert "Groups" not in plain.texts
    assert "66.7 points" in full.text
    assert "<b>old</b> over young" in full.text


def test_calibration_is_shown_before_and_after_the_temperature(write_run):
    page = open_page(write_run("mine", temperature=1.25))

    assert "a temperature of 1.250, fitted on validation images" in page.text
    assert "the scores after it are optimistic" in page.text
    sharper = 0.8**1.25 / (0.8**1.25 + 2 * 0.1**1.25)
    assert f"{abs(2 / 3 - sharper):.4f} {abs(2 / 3 - 0.8):.4f}" in page.text  # one bin each


def test_without_a_temperature_nothing_is_called_before_and_after(write_run):
    page = open_page(write_run("mine"))

    assert "no temperature was fitted" in page.text
    assert "Before" not in page.texts


def test_runs_are_compared_image_by_image(write_run):
    page = open_page(write_run("first"), write_run("second", 63, branch="densenet121"))

    assert "+3.33 [+0.00, +7.78] 0.25 not significantly better" in page.text
    assert "McNemar p" in page.text
    better = open_page(write_run("first"), write_run("third", 80, branch="densenet121"))
    assert " better" in better.text
    assert "+22.22 [" in better.text


def test_runs_on_other_images_are_shown_and_not_compared(write_run):
    page = open_page(write_run("first"), write_run("second", prefix="b", branch="densenet121"))

    assert "Not compared: first and second have predictions of different images" in page.text
    assert page.texts.count("Confusion") == 2


def test_other_evaluations_of_a_run_are_shown(write_run):
    folder = write_run("mine")
    write_results(Run(folder), evaluate(90), "evaluations/faces-test")

    page = open_page(folder)

    assert "On other images: faces-test" in page.texts
    assert "100.00%" in page.text


def test_where_the_images_are_gone_the_sheet_of_the_run_is_shown(write_run, tmp_path):
    folder = write_run("mine")
    (tmp_path / "colours").rename(tmp_path / "elsewhere")
    assert "The images are no longer where they were." in open_page(folder).text

    Image.new("RGB", (8, 8)).save(folder / "errors.png")

    sources = [value for name, value in open_page(folder).attributes if name == "src"]
    assert [value[:22] for value in sources] == ["data:image/png;base64,"]


def test_the_page_is_in_the_run_by_default(write_run, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first, second = write_run("first"), write_run("second")

    main([str(first)])
    assert (first / "report.html").is_file()
    main([str(first), str(second)])
    [path] = (tmp_path / "runs").glob("report-*.html")
    assert f"{path.relative_to(tmp_path)} opens in any browser" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("report.json", '{"training": {"best_epoch": 1}}', "is damaged or of another version"),
        ("report.json", "{", "cannot be read"),
        ("predictions.csv", "name\n", "predictions.csv cannot be read"),
        ("history.csv", "epoch,loss\n1,much\n", "cannot be read"),
        ("split.csv", "path,label\n1\n", "split.csv cannot be read"),
        ("environment.json", "none", "environment.json cannot be read"),
        ("environment.json", "[1]", "environment.json cannot be read"),
        ("config.yaml", "data: 1", "no longer holds valid settings"),
    ],
)
def test_a_damaged_run_costs_a_sentence(name, text, told, write_run, capsys):
    folder = write_run("mine")
    (folder / name).write_text(text)

    assert main([str(folder)]) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert errors.startswith("error: ")


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with open_tab(tmp_path / "profile") as tab:
        yield tab


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_it_opens_in_a_browser_at_every_width_and_fetches_nothing(write_run, tab, tmp_path):
    first, second = (
        write_run("first", temperature=1.25, members=MEMBERS),
        write_run("second", 80, branch="densenet121"),
    )
    path = tmp_path / "page.html"
    main([str(first), str(second), "--output", str(path)])

    for width, dark in ((1280, False), (1280, True), (390, False), (320, True)):
        tab.resize(width, 900, dark=dark)
        tab.send("Page.navigate", url=path.as_uri())
        tab.wait_for(
            "document.readyState === 'complete' && document.querySelector('main') !== null"
        )
        tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        shown = tab.evaluate("document.body.innerText")
        assert "66.67%" in shown
        assert "+22.22 [" in shown
        # The dark ink of figures is inverted on a dark page.
        style = tab.evaluate("getComputedStyle(document.querySelector('svg.chart')).filter")
        assert style.startswith("invert") == dark
        assert tab.evaluate("document.querySelector('.pictures img').naturalWidth") == 32
    assert tab.complaints == []
    assert {url for url in tab.requests if not url.startswith("data:")} == {path.as_uri()}
