"""Figures show the numbers they are given, inside their frame and apart from each other."""

import io
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from ensemble.metrics.calibration import Calibration, measure_calibration
from ensemble.plots import figures
from ensemble.plots.calibration import plot_reliability, plot_risk_coverage
from ensemble.plots.confusion import plot_confusion
from ensemble.plots.curves import plot_curves, plot_histories
from ensemble.plots.figures import png, svg
from ensemble.plots.intervals import plot_intervals
from ensemble.plots.pictures import MAX_ERRORS, MAX_IMAGES, plot_contact_sheet, plot_errors
from ensemble.plots.tradeoff import plot_tradeoff

EMOTIONS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
FOREIGN = [
    "\u559c\u3073",
    "\u60b2\u3057\u307f",
    "\u0633\u0639\u064a\u062f",
    "\U0001f600",
    "radosn\u00fd",
    "a\tb",
]
LONG = [f"a name that is much too long for a cell {index}" for index in range(20)]


def make_history(epochs: int) -> dict[str, np.ndarray]:
    steps = np.arange(1, epochs + 1)
    return {
        "accuracy": 0.85 - 0.4 * np.exp(-steps / 8),
        "val_accuracy": 0.78 - 0.3 * np.exp(-steps / 5),
        "loss": 0.35 + 0.8 * np.exp(-steps / 8),
        "val_loss": 0.58 + 0.5 * np.exp(-steps / 4) + 0.004 * steps,
        "seconds": np.full(epochs, 60.0),
    }


def make_counts(num_classes: int) -> np.ndarray:
    random = np.random.default_rng(num_classes)
    counts = random.poisson(20, size=(num_classes, num_classes))
    return counts + np.diag(random.poisson(1500, size=num_classes))


def make_images(count: int, shape: tuple[int, int] = (48, 48)) -> list[np.ndarray]:
    random = np.random.default_rng(count)
    return list(random.integers(256, size=(count, *shape, 3), dtype=np.uint8))


def make_errors(count: int, names: list[str]) -> Figure:
    truths = [names[index % len(names)] for index in range(count)]
    predictions = [names[(index + 1) % len(names)] for index in range(count)]
    confidences = np.linspace(0.99, 0.5, count)
    return plot_errors(make_images(count), truths, predictions, confidences, "The worst mistakes")


def make_calibration(images: int, temperature: float) -> Calibration:
    random = np.random.default_rng(images)
    labels = random.integers(8, size=images)
    answers = random.dirichlet(np.ones(8), size=images) + np.eye(8)[labels]
    return measure_calibration(labels, answers / 2, temperature)


def make_intervals(names: list[str]) -> Figure:
    scores = [(0.5, 0.4, 0.7), (0.8, 0.75, 0.9), (0.0, 0.0, 0.3), (1.0, 0.9, 1.0)] * 5
    scores = scores[: len(names)]
    return plot_intervals(names, {"F1": scores, "Recall": scores[::-1]}, 0, "run on test")


def drawn_texts(figure: Figure) -> dict[Text, Bbox]:
    """Texts that reach the picture, unlike labels of ticks out of sight, and their boxes."""
    canvas = FigureCanvasAgg(figure)
    with patch.object(Text, "draw", autospec=True, side_effect=Text.draw) as draw:
        canvas.draw()
    texts = [call.args[0] for call in draw.call_args_list]
    return {
        text: text.get_window_extent(canvas.get_renderer())
        for text in texts
        if text.get_visible() and text.get_text().strip()
    }


def texts_of(figure: Figure) -> set[str]:
    return {text.get_text() for text in drawn_texts(figure)}


def grid_of(axes, num_classes: int) -> list[list[str]]:
    """Texts of the cells of a matrix by their places."""
    cells = {
        (int(text.get_position()[1]), int(text.get_position()[0])): text.get_text()
        for text in axes.texts
    }
    return [[cells[row, column] for column in range(num_classes)] for row in range(num_classes)]


FIGURES = {
    "curves of 1 epoch": lambda: plot_curves(make_history(1), 1, "run"),
    "curves of 50 epochs": lambda: plot_curves(make_history(50), 43, "run"),
    "curves of two phases": lambda: plot_curves(make_history(20), 17, "run", fine_tuned_from=12),
    "curves without validation": lambda: plot_curves({"loss": [1.0, 0.5]}, None, "run"),
    "curves that diverged": lambda: plot_curves({"loss": [1.0, 3e7], "val_loss": [1, np.nan]}, 1),
    "no curves": lambda: plot_curves({}),
    "2 classes": lambda: plot_confusion(make_counts(2), EMOTIONS[:2], "run"),
    "8 classes": lambda: plot_confusion(make_counts(8), EMOTIONS, "run on test"),
    "3 long classes": lambda: plot_confusion(make_counts(3), LONG[:3], "run"),
    "10 long classes": lambda: plot_confusion(make_counts(10), LONG[:10], "run"),
    "20 long classes": lambda: plot_confusion(make_counts(20), LONG, "run"),
    "a long title": lambda: plot_confusion(make_counts(2), ["a", "b"], "A title " * 12),
    "no errors": lambda: make_errors(0, EMOTIONS),
    "1 error": lambda: make_errors(1, EMOTIONS),
    "24 errors": lambda: make_errors(24, EMOTIONS[:3]),
    "24 long errors": lambda: make_errors(24, LONG),
    "contact sheet": lambda: plot_contact_sheet(
        {name: make_images(10) for name in LONG[:4]}, "run"
    ),
    "foreign classes": lambda: plot_confusion(make_counts(6), FOREIGN, FOREIGN[0]),
    "foreign errors": lambda: make_errors(7, FOREIGN),
    "foreign contact sheet": lambda: plot_contact_sheet(
        {name: make_images(3) for name in FOREIGN}, "data"
    ),
    "no images": lambda: plot_contact_sheet({}),
    "reliability": lambda: plot_reliability(make_calibration(1500, 1.7).panels(), "run on test"),
    "reliability of 9 images": lambda: plot_reliability(make_calibration(9, 1.0).panels(), "run"),
    "intervals": lambda: make_intervals(EMOTIONS),
    "an interval": lambda: make_intervals(EMOTIONS[:1]),
    "20 long intervals": lambda: make_intervals(LONG),
    "foreign intervals": lambda: make_intervals(FOREIGN),
    "risk and coverage": lambda: plot_risk_coverage(
        make_calibration(1500, 1.7).risks, "run on test"
    ),
    "risk of 1 image": lambda: plot_risk_coverage(make_calibration(1, 1.0).risks),
}


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_texts_are_whole_and_apart(make):
    figure = make()
    boxes = drawn_texts(figure)
    level = {text: box for text, box in boxes.items() if text.get_rotation() != 45}

    assert level
    for text, box in boxes.items():
        assert figure.bbox.containsx(box.x0), f"{text} is clipped"
        assert figure.bbox.containsx(box.x1), f"{text} is clipped"
        assert figure.bbox.containsy(box.y0), f"{text} is clipped"
        assert figure.bbox.containsy(box.y1), f"{text} is clipped"
    for (one, box), (other, box_of_other) in itertools.combinations(level.items(), 2):
        assert not box.overlaps(box_of_other), f"{one} overlaps {other}"


@pytest.mark.parametrize("name", ["curves of 1 epoch", "8 classes", "24 errors", "no images"])
def test_png_is_150_pixels_to_the_inch(name):
    figure = FIGURES[name]()
    with Image.open(io.BytesIO(png(figure))) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == pytest.approx(figure.get_size_inches() * 150, abs=1)


def test_curves_show_the_history():
    history = make_history(12)
    accuracy, loss = plot_curves(history, None, "vgg16").axes

    for axes, name in ((accuracy, "accuracy"), (loss, "loss")):
        training, validation = axes.lines
        np.testing.assert_array_equal(training.get_xdata(), np.arange(1, 13))
        np.testing.assert_array_equal(training.get_ydata(), history[name])
        np.testing.assert_array_equal(validation.get_ydata(), history[f"val_{name}"])
        assert (training.get_label(), validation.get_label()) == ("Training", "Validation")


@pytest.mark.parametrize(("epochs", "best"), [(1, 1), (22, 17), (50, 50)])
def test_best_epoch_is_marked_with_its_values(epochs, best):
    history = make_history(epochs)
    accuracy, loss = plot_curves(history, best, "vgg16").axes

    for axes in (accuracy, loss):
        (line,) = [line for line in axes.lines if line.get_label() == "Best epoch"]
        assert set(line.get_xdata()) == {best}
    assert accuracy.get_title("right") == f"{history['val_accuracy'][best - 1]:.1%} at epoch {best}"
    assert loss.get_title("right") == f"{history['val_loss'][best - 1]:.3f} at epoch {best}"


def test_best_epoch_is_in_the_legend_only_where_it_is_known():
    known, unknown = plot_curves(make_history(3), 2), plot_curves(make_history(3))

    assert "Best epoch" in texts_of(known)
    assert "Best epoch" not in texts_of(unknown)


@pytest.mark.parametrize("epochs", [1, 2, 3, 8, 22, 50, 300])
def test_epochs_are_whole_numbers_from_one(epochs):
    for axes in plot_curves(make_history(epochs), 1).axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]

        assert ticks
        assert all(tick == int(tick) and 1 <= tick <= epochs for tick in ticks)


def test_percents_on_the_axis_are_exact():
    history = {"accuracy": [0.5131, 0.5139], "val_accuracy": [0.512, 0.513]}
    axes = plot_curves(history, 2).axes[0]

    low, high = axes.get_ylim()
    for tick in axes.get_yticks():
        if low <= tick <= high:
            label = axes.yaxis.get_major_formatter()(tick)
            assert float(label.rstrip("%")) == pytest.approx(100 * tick)


@pytest.mark.parametrize("num_classes", [2, 3, 8, 10, 20])
def test_confusion_shows_counts_and_shares(num_classes):
    counts = make_counts(num_classes)
    left, right = plot_confusion(counts, LONG[:num_classes], "run").axes

    expected = [[f"{count:,}" for count in row] for row in counts.tolist()]
    assert grid_of(left, num_classes) == expected
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert grid_of(right, num_classes) == [[f"{share:.0%}" for share in row] for row in shares]


def test_confusion_has_truths_as_rows_from_the_top():
    left, right = plot_confusion([[1, 2], [3, 4]], ["cat", "dog"], "run").axes

    assert left.yaxis_inverted()
    assert [label.get_text() for label in left.get_yticklabels()] == ["cat", "dog"]
    assert (left.get_ylabel(), left.get_xlabel()) == ("True class", "Predicted class")
    for axes in (left, right):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]


def test_class_without_images_has_no_shares():
    _, right = plot_confusion([[5, 0], [0, 0]], ["cat", "dog"]).axes

    assert grid_of(right, 2) == [["100%", "0%"], ["–", "–"]]


def test_cut_names_stay_apart():
    left, _ = plot_confusion(make_counts(20), LONG).axes
    labels = [label.get_text() for label in left.get_yticklabels()]

    assert len(set(labels)) == 20
    assert all("…" in label and len(label) < 30 for label in labels)


def test_names_are_not_read_as_formulas():
    figure = plot_confusion(make_counts(2), ["$a$", r"$\frac{$"], "$x$ and $y$")

    assert len(png(figure)) > 1000
    assert {"$a$", r"$\frac{$", "$x$ and $y$"} <= set(texts_of(figure))


def test_errors_show_pictures_with_captions():
    images = make_images(3)
    figure = plot_errors(
        images, ["sad", "happy", "sad"], ["happy", "sad", "neutral"], [0.934, 0.8, 0.51], "Worst"
    )
    (sheet,) = figure.axes

    assert [text.get_text() for text in sheet.texts] == [
        "sad → happy 0.93",
        "happy → sad 0.80",
        "sad → neutral 0.51",
    ]
    for shown, image in zip(sheet.images, images, strict=True):
        np.testing.assert_array_equal(shown.get_array(), image)
    assert "Worst" in texts_of(figure)


def test_wide_captions_break_before_the_arrow():
    (sheet,) = plot_errors(make_images(1), ["a rather wide name"], ["another one"], [0.7]).axes

    assert [text.get_text() for text in sheet.texts] == [
        "a rather wide name",
        "→ another one 0.70",
    ]


def test_no_more_than_24_errors_are_drawn():
    (sheet,) = make_errors(40, ["happy", "sad"]).axes

    assert len(sheet.images) == len(sheet.texts) == MAX_ERRORS == 24


def test_no_mistakes_are_told():
    figure = make_errors(0, EMOTIONS)

    assert texts_of(figure) == {"The worst mistakes", "No mistakes."}


def test_pictures_keep_their_proportions():
    images = [*make_images(1, shape=(30, 60)), *make_images(1, shape=(60, 30))]
    (sheet,) = plot_errors(images, ["a", "a"], ["b", "b"], [1.0, 1.0]).axes

    ratios = []
    for shown in sheet.images:
        left, right, bottom, top = shown.get_extent()
        ratios.append((right - left) / (bottom - top))
    assert ratios == pytest.approx([2, 0.5])


def test_reliability_shows_accuracies_and_shares_of_images_before_and_after():
    calibration = make_calibration(1500, 1.7)
    figure = plot_reliability(calibration.panels(), "run")

    for panels, bins, scores in (
        (figure.axes[:2], calibration.bins_before, calibration.before),
        (figure.axes[2:], calibration.bins, calibration.after),
    ):
        reliability, shares = panels
        assert reliability.get_title("right") == f"ECE {scores.ece:.3f}"
        filled = [found for found in bins if found.images]
        ends = [
            max(bar.get_y() + bar.get_height() for bar in bars)
            for _, bars in itertools.groupby(reliability.patches, key=lambda bar: bar.get_x())
        ]
        assert ends == pytest.approx([max(found.accuracy, found.confidence) for found in filled])
        heights = [bar.get_height() for bar in shares.patches]
        assert heights == pytest.approx([found.images / 1500 for found in bins])
    assert len(plot_reliability(make_calibration(50, 1.0).panels()).axes) == 2


def test_risk_coverage_ends_at_the_share_of_mistakes():
    calibration = make_calibration(1500, 1.7)
    (axes,) = plot_risk_coverage(calibration.risks, "run").axes

    (curve,) = [line for line in axes.lines if line.get_label() == "Most confident images"]
    np.testing.assert_array_equal(curve.get_ydata(), calibration.risks)
    assert curve.get_xdata()[-1] == 1
    assert axes.get_title("right") == f"area {calibration.aurc:.3f}"


def test_intervals_are_drawn_from_end_to_end():
    left, right = make_intervals(EMOTIONS[:2]).axes

    reference, *lines = [list(line.get_xdata()) for line in left.lines]
    assert reference[0] == 0.5
    assert lines == [[0.4, 0.7], [0.5], [0.75, 0.9], [0.8]]
    assert [list(line.get_xdata()) for line in right.lines[1:]] == lines[2:] + lines[:2]
    assert [label.get_text() for label in left.get_yticklabels()] == EMOTIONS[:2]
    assert left.yaxis_inverted()


def test_an_svg_has_its_description_and_real_text():
    text = svg(plot_confusion(make_counts(2), ["cat", "<dog> & co"]), "Counts of <b> & c")

    root = ElementTree.fromstring(text)
    names = {"svg": "http://www.w3.org/2000/svg"}
    title = root.find("svg:title", names)
    assert title is not None
    assert title.text == "Counts of <b> & c"
    assert {"cat", "<dog> & co"} <= {node.text for node in root.iterfind(".//svg:text", names)}
    assert root.get("role") == "img"
    assert 'style="fill: #ffffff"' not in text  # no background


def test_contact_sheet_has_a_row_for_each_class():
    figure = plot_contact_sheet(
        {"happy": make_images(12), "sad": make_images(3), "rare": []}, "demo faces"
    )
    (sheet,) = figure.axes

    assert texts_of(figure) == {"demo faces", "happy", "sad", "rare"}
    tops = [shown.get_extent()[3] for shown in sheet.images]
    assert [len(list(row)) for _, row in itertools.groupby(tops)] == [MAX_IMAGES, 3]


def test_threads_draw_what_one_thread_draws():
    drawings = [FIGURES[name] for name in ("curves of 50 epochs", "8 classes", "24 errors")]
    alone = [png(make()) for make in drawings]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda make: png(make()), drawings * 2))

    assert together == alone * 2


def test_pyplot_is_never_imported():
    program = (
        "import sys; from ensemble.plots.curves import plot_curves; "
        "from ensemble.plots.figures import png; png(plot_curves({'loss': [1.0]})); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_each_history_is_a_line_of_its_own_in_all_four_panels():
    histories = {f"setting {number}": make_history(number + 3) for number in range(15)}

    figure = plot_histories(histories, "Fifteen settings")

    names = ["accuracy", "val_accuracy", "loss", "val_loss"]
    assert len(figure.axes) == 4
    for axes, name in zip(figure.axes, names, strict=True):
        for line, history in zip(axes.get_lines(), histories.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), history[name])
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    dashes = {str(line._dash_pattern) for line in figure.axes[0].get_lines()}
    assert len(looks) >= 14
    assert len(dashes) == 3
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert {*histories} <= {text.get_text() for text in figure.texts}


@pytest.mark.parametrize(
    "amounts",
    [[5.0] * 20, [9.0, 5.0, 9.1, 5.0, 5.2] * 3, [1.0] * 12 + [1000.0], [3.0], [1.0, 1.05] * 40],
)
def test_models_of_equal_costs_stand_side_by_side(amounts):
    names, values = [str(amount) for amount in amounts], [(0.5, 0.4, 0.6)] * len(amounts)

    figure = plot_tradeoff(names, [1] * len(amounts), {"F1": values}, {"Time": amounts})

    (axes,) = figure.axes
    places = np.array([text.xy[0] for text in axes.texts])
    inches = np.log(axes.get_xlim()) @ [-1, 1] / (axes.get_position().width * figure.bbox.width)
    order = np.argsort(amounts, kind="stable")
    gaps = np.diff(np.log(places[order])) / inches / figure.dpi
    assert (gaps > min(0.15, 2.5 / len(amounts))).all()
    assert axes.get_xlim()[0] < places.min() <= places.max() < axes.get_xlim()[1]
    middle = np.exp(np.mean(np.log(amounts)))
    assert np.exp(np.mean(np.log(places))) == pytest.approx(middle, rel=1e-3)


def test_a_tradeoff_shows_each_model_at_its_cost_with_its_interval():
    scores = {"Accuracy": [(0.7, 0.65, 0.74), (0.8, 0.77, 0.83)]}
    costs = {"Parameters": [20.0, 10.0], "Time": [3.0, 4.0]}

    figure = plot_tradeoff(["one", "two"], [1, 2], scores, costs, "Two models")

    assert len(figure.axes) == 2
    for axes, amounts in zip(figure.axes, costs.values(), strict=True):
        drawn = [(*line.get_xdata(), *line.get_ydata()) for line in axes.get_lines()]
        assert drawn == [
            pytest.approx(shape)
            for amount, (value, low, high) in zip(amounts, scores["Accuracy"], strict=True)
            for shape in ((amount, amount, low, high), (amount, value))
        ]
        ends = {text.get_text(): text.xy for text in axes.texts}
        assert ends["1"] == pytest.approx((amounts[0], 0.74))
        assert ends["2"] == pytest.approx((amounts[1], 0.83))
    assert {"1  one", "2  two", "1 branch", "2 branches"} <= {t.get_text() for t in figure.texts}


def make_foreign_figures() -> list[Figure]:
    images = make_images(6)
    return [
        plot_confusion(make_counts(6), FOREIGN, FOREIGN[0]),
        plot_errors(images, FOREIGN, FOREIGN[::-1], [0.5] * 6, FOREIGN[1]),
        plot_contact_sheet(dict.fromkeys(FOREIGN, images), FOREIGN[2]),
        plot_histories({name: make_history(3) for name in FOREIGN}),
        plot_tradeoff(
            FOREIGN,
            [1] * 6,
            {"Accuracy": [(0.7, 0.6, 0.8)] * 6},
            {"Parameters": [1.0] * 6},
        ),
    ]


@pytest.mark.filterwarnings("error")
def test_names_of_any_script_are_drawn_without_missing_letters():
    for figure in make_foreign_figures():
        assert png(figure)


def test_names_without_a_font_are_numbered_with_a_key(monkeypatch):
    fonts = [font for font in figures._installed_fonts() if font[0] == "DejaVu Sans"]
    monkeypatch.setattr(figures, "_installed_fonts", lambda: fonts)
    figures._font_of.cache_clear()

    for figure in make_foreign_figures()[:3]:
        texts = [text.get_text() for text in figure.findobj(Text)]
        shown = "\n".join(texts)
        assert r"= \u559c\u3073" in shown
        assert FOREIGN[4] in shown
        assert not set(shown) & set(FOREIGN[0] + FOREIGN[1])
    figures._font_of.cache_clear()


def test_a_font_that_has_the_letters_is_picked(monkeypatch):
    families = ["DejaVu Sans"]
    monkeypatch.setattr(figures, "_families", families)
    monkeypatch.setattr(figures, "_installed_fonts", lambda: [("Latin", "l"), ("Kana", "k")])
    monkeypatch.setattr(
        figures, "_letters_of", lambda path: {ord(x) for x in ("ab" if path == "l" else "\u3073")}
    )
    figures._font_of.cache_clear()

    assert figures.legible("a\u3073") == "a\u3073"
    assert families == ["DejaVu Sans", "Kana", "Latin"]
    assert figures.legible("\u559c") == r"\u559c"
    assert figures.choose_font("ab") == ("l", "ab")
    assert figures.choose_font("\u3073") == ("k", "\u3073")
    assert figures.choose_font("ab\u3073") == ("l", r"ab\u3073")
    figures._font_of.cache_clear()
