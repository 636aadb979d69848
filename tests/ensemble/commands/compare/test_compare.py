"""Laws of comparison: metrics are those of the predictions, and chance is not called a gain."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.files import write_config
from configs.schema import ExperimentConfig
from configs.search import SearchExperiment
from ensemble.commands.compare.__main__ import main
from ensemble.commands.compare.candidates import read_candidates
from ensemble.commands.compare.costs import measure_costs
from ensemble.commands.compare.results import (
    compare_candidates,
    gains_of_fusion,
    spread_over_seeds,
)
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.metrics.evaluating import write_results
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.report import Report, TrainingSummary
from ensemble.model.composition import build_model
from ensemble.runs.run import Run

CLASSES = ["neutral", "happy", "sad"]
IMAGES = 300
LABELS = np.arange(IMAGES) % 3

WriteRun = Callable[..., Path]


def predict(correct: Sequence[int] | range, sureness: float = 0.8) -> np.ndarray:
    """Returns probabilities that are right on some images and name the next class on others."""
    predicted = (LABELS + 1) % 3
    predicted[list(correct)] = LABELS[list(correct)]
    probabilities = np.full((IMAGES, 3), (1 - sureness) / 2)
    probabilities[np.arange(IMAGES), predicted] = sureness
    return probabilities


def write_predictions(
    run: Run,
    probabilities: np.ndarray,
    *,
    order: Sequence[int] | None = None,
    prefix: str = "",
    classes: Sequence[str] = CLASSES,
    names: Sequence[str] = (),
) -> None:
    order = np.arange(IMAGES) if order is None else np.asarray(order)
    columns = [CLASSES.index(name) for name in classes]
    labels = np.argsort(columns)[LABELS[order]]
    probabilities = probabilities[order][:, columns]
    images = [f"{prefix}{row:03}.png" for row in order]
    predictions = Predictions(names or classes, images, labels, probabilities)
    training = TrainingSummary(3, 2, "val_accuracy", {})
    write_results(run, Report("test", predictions, training=training))
    epochs = [(1, "head", 0.5, 0.4, 1.2, 1.3), (2, "head", 0.75, 0.6, 1.0, 1.1)]
    epochs.append((3, "head", 0.9, 0.5, 0.8, 1.4))
    header = ["epoch", "phase", "accuracy", "val_accuracy", "loss", "val_loss"]
    run.write_table("history.csv", header, epochs)


def make_settings(branches: Sequence[str], **changes: dict[str, Any]) -> ExperimentConfig:
    values: dict[str, Any] = {"model": {"branches": list(branches), "weights": "random"}}
    for section, settings in changes.items():
        is_section = isinstance(settings, dict)
        values[section] = {**values.get(section, {}), **settings} if is_section else settings
    return ExperimentConfig.model_validate(values)


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes what a finished run keeps, without training it."""

    def write(
        name: str,
        probabilities: np.ndarray,
        branches: Sequence[str] = ("vgg16",),
        *,
        written: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        run = Run(tmp_path / "runs" / name)
        config = make_settings(branches, **changes)
        run.write("config.yaml", write_config(config.model_dump(mode="json", exclude_none=True)))
        write_predictions(run, probabilities, **(written or {}))
        return run.folder

    return write


def compare(*folders: Path, output: Path | None = None) -> list[str]:
    place = output or folders[0].parent / "comparison"
    return ["--no-timing", "--output", str(place), *map(str, folders)]


def test_a_gain_that_may_be_chance_is_not_significant(write_run, capsys):
    first = write_run("first", predict(range(200)))
    second = write_run("second", predict(range(203)), training={"epochs": 9})

    assert main(compare(first, second)) == 0

    line = next(line for line in capsys.readouterr().out.splitlines() if "second" in line)
    assert "67.67%" in line
    assert "+1.00 [" in line
    assert "0.25" in line  # 3 images differ: 2 / 2 ** 3
    assert line.endswith("not significantly better")


def test_a_significant_gain_is_called_better(write_run, capsys):
    first = write_run("first", predict(range(150)))
    second = write_run("second", predict(range(210)), training={"epochs": 9})

    main(compare(first, second))

    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if "second" in line).endswith("better")


def test_images_and_classes_are_matched_by_name_and_not_by_place(write_run):
    first = write_run("first", predict(range(200)))
    order = np.random.default_rng(0).permutation(IMAGES)
    written = {"order": order, "classes": ["sad", "neutral", "happy"]}
    shuffled = write_run("shuffled", predict(range(200)), written=written)
    other = write_run("other", predict(range(100, 300)), written=written)

    one, same, different = compare_candidates(read_candidates([first, shuffled, other]))

    np.testing.assert_array_equal(same.predictions.probabilities, one.predictions.probabilities)
    assert same.metrics.confusion == one.metrics.confusion
    assert same.against_first.mcnemar.only_first == same.against_first.mcnemar.only_second == 0
    assert different.against_first.mcnemar.only_first == 100
    assert different.against_first.mcnemar.only_second == 100


def test_the_paired_interval_is_that_of_resampled_images(write_run):
    first = write_run("first", predict(range(200)))
    second = write_run("second", predict(range(30, 245)), training={"epochs": 9})
    right = np.zeros((2, IMAGES))
    right[0, :200] = right[1, 30:245] = 1
    rows = np.random.default_rng(3).integers(IMAGES, size=(4000, IMAGES))
    low, high = np.quantile((right[1] - right[0])[rows].mean(axis=1), [0.025, 0.975])

    _, found = compare_candidates(read_candidates([first, second]))

    gain = found.against_first.accuracy
    assert gain.value == pytest.approx(15 / 300)
    assert gain.interval.low == pytest.approx(low, abs=0.006)
    assert gain.interval.high == pytest.approx(high, abs=0.006)


@pytest.mark.parametrize(
    "written", [{"prefix": "other/"}, {"order": range(299)}, {"classes": ["happy", "sad"]}]
)
def test_predictions_of_other_images_are_rejected_in_a_sentence(written, write_run, capsys):
    first = write_run("first", predict(range(200)))
    if "classes" in written:
        second = write_run("second", predict(range(200)), training={"epochs": 9})
        path = second / "predictions.csv"
        path.write_text(path.read_text().replace("neutral", "angry"))
    else:
        second = write_run("second", predict(range(200)), written=written, training={"epochs": 9})

    assert main(compare(first, second)) == 2

    told = capsys.readouterr().err
    assert told.startswith(
        "error: first and second have predictions of different images or classes"
    )
    assert "first/split.csv" in told
    assert told.count("error") == 1


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("config.yaml", None, "neither a finished run nor a search: it has no config.yaml"),
        ("predictions.csv", None, "it has no predictions.csv"),
        ("predictions.csv", "name,label\n", "cannot be read"),
        ("predictions.csv", "name,label,predicted,confidence,a\nx,b,a,1,1\n", "cannot be read"),
        ("report.json", "{", "report.json cannot be read"),
    ],
)
def test_a_damaged_run_is_reported_in_a_sentence(name, text, told, write_run, capsys):
    folder = write_run("first", predict(range(200)))
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)

    assert main(compare(folder)) == 2
    assert told in capsys.readouterr().err


def test_runs_that_differ_only_in_seed_are_reported_as_mean_and_deviation(write_run, capsys):
    correct = (180, 190, 210)
    folders = [
        write_run(f"seed{seed}", predict(range(count)), seed=seed)
        for seed, count in enumerate(correct, start=1)
    ]
    folders.append(write_run("other", predict(range(100)), training={"epochs": 9}))
    accuracies = np.array(correct) / IMAGES

    results = compare_candidates(read_candidates(folders))
    (spread,) = spread_over_seeds(results)

    assert [candidate.name for candidate in spread.candidates] == ["seed1", "seed2", "seed3"]
    assert spread.scores["accuracy"] == pytest.approx((accuracies.mean(), accuracies.std(ddof=1)))
    assert main(compare(*folders)) == 0
    assert "64.44% +- 5.09%" in capsys.readouterr().out


def test_seeds_with_images_of_their_own_are_not_paired(write_run, capsys):
    first = write_run("first", predict(range(180)), seed=1)
    second = write_run("second", predict(range(200)), seed=2, written={"prefix": "other/"})

    assert main(compare(first, second)) == 0

    output = capsys.readouterr().out
    assert "63.33% +- 4.71%" in output
    assert "McNemar" not in output


def test_a_fused_candidate_stands_beside_its_best_branch_and_their_average(write_run, capsys):
    random = np.random.default_rng(1)
    first, second = (random.dirichlet(np.ones(3), IMAGES) for _ in range(2))
    first[np.arange(IMAGES), LABELS] += 0.5
    second[np.arange(IMAGES), LABELS] += 0.3
    first, second = (each / each.sum(axis=1, keepdims=True) for each in (first, second))
    fused = predict(range(290))
    folders = [
        write_run("fused", fused, ["vgg16", "densenet121"]),
        write_run("vgg", first, ["vgg16"]),
        write_run("dense", second, ["densenet121"]),
        write_run("dense-lucky", predict(range(299)), ["densenet121"], training={"epochs": 9}),
    ]
    right = [np.mean(each.argmax(axis=1) == LABELS) for each in (first, second)]
    average = np.mean(((first + second) / 2).argmax(axis=1) == LABELS)

    (gain,) = gains_of_fusion(compare_candidates(read_candidates(folders)))

    assert right[0] > right[1]
    assert gain.best.candidate.name == "vgg"  # the other settings decide, not the luck
    assert gain.over_best.accuracy.value == pytest.approx(290 / 300 - right[0])
    assert gain.average == pytest.approx(average)
    assert gain.over_average.accuracy.value == pytest.approx(290 / 300 - average)
    assert main(compare(*folders)) == 0
    assert "Gain of fusion" in capsys.readouterr().out


def test_a_late_fusion_stands_beside_its_members(write_run):
    folders = [write_run("one", predict(range(150))), write_run("two", predict(range(100, 290)))]
    fused = write_run("late", predict(range(200)))
    (fused / "fusion.json").write_text(
        '{"method": "average", "members": ["../one", "../two"], "branches": ["vgg16", "vgg16:2"]}'
    )

    results = compare_candidates(read_candidates([fused, *folders]))
    (gain,) = gains_of_fusion(results)

    assert results[0].candidate.branches == ["vgg16", "vgg16:2"]
    assert gain.best.candidate.name == "two"
    assert gain.over_best.accuracy.value == pytest.approx((200 - 190) / 300)
    assert gain.average is not None
    assert spread_over_seeds(results) == []


@pytest.mark.parametrize("digests", [("a", "a"), ("a", ""), ("", ""), ("a", "b")])
def test_images_of_one_name_are_the_same_only_with_the_same_content(write_run, digests):
    runs = [Run(write_run(f"run{n}", predict(range(200)))) for n in range(2)]
    for run, digest in zip(runs, digests, strict=True):
        rows = [(f"{row:03}.png", "validation", digest) for row in range(IMAGES)]
        run.write_table("split.csv", ["path", "split", "sha256"], rows)

    first, second = (
        candidate.predictions for candidate in read_candidates([r.folder for r in runs])
    )

    assert (second.arranged_as(first) is None) == (digests == ("a", "b"))


@pytest.fixture
def write_study_runs(write_run):
    """Writes runs of the study's settings, of which `changes` may differ."""

    def write(**changes: Any) -> list[Path]:
        model = {"weights": "imagenet", **changes.pop("model", {})}
        return [
            write_run(
                f"{branch}-{initializer}",
                predict(range(count)),
                [branch],
                model={**model, "head": {"kernel_initializer": initializer}},
                **{"data": {"root": ["faces"]}, **changes},
            )
            for branch, initializer, count in (
                ("vgg16", "he_normal", 240),
                ("vgg16", "glorot_uniform", 225),
                ("densenet121", "he_normal", 210),
            )
        ]

    return write


def test_the_studys_tables_and_reports_stand_beside_ours(write_study_runs, capsys):
    assert main(compare(*write_study_runs())) == 0

    output = capsys.readouterr().out
    lines = {line.split()[0]: line for line in output.split("The study's ")[1].splitlines() if line}
    assert re.search(r"82\.85 / 75\.00 +76\.37 / 75\.00 +79\.28 / 80\.00 +76\.49 / 70\.00",
                     lines["he_normal"])  # fmt: skip
    assert re.search(r"76\.97 / 75\.00 +76\.49 / -", lines["glorot_uniform"])
    assert "Table 2" not in output
    assert re.search(r"the study: vgg16, he_normal +0\.67 / 0\.81 / 0\.74", output)
    assert "the study: densenet121, glorot_uniform" not in output


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"root": []}},
        {"data": {"root": ["faces"], "source": "demo"}},
        {"model": {"weights": "random"}},
        {"training": {"unfreeze": ["all"]}},
        {"written": {"names": ["cats", "dogs", "birds"]}},
        {"written": {"names": ["neutral", "happy", "angry"]}},
    ],
    ids=str,
)
def test_the_study_is_left_out_where_runs_are_not_comparable(write_study_runs, changes, capsys):
    assert main(compare(*write_study_runs(**changes))) == 0

    assert "the study" not in capsys.readouterr().out.lower()


def test_other_names_of_the_studys_classes_are_comparable(write_study_runs, capsys):
    assert main(compare(*write_study_runs(written={"names": ["Neutral", "joy", "Sadness"]}))) == 0

    assert "The study's Table 1" in capsys.readouterr().out


def test_the_options_of_a_head_count_whether_they_are_written_or_not(write_run):
    plain = write_run("plain", predict(range(100)))
    stated = write_run("stated", predict(range(100)), model={"head": {"units": 512}})
    other = write_run("other", predict(range(100)), model={"head": {"units": 256}})

    first, second, third = (
        candidate.setting for candidate in read_candidates([plain, stated, other])
    )

    assert first == second != third


@pytest.fixture
def search_folder(tmp_path: Path) -> Path:
    """A search over branches with two trials that were completed and one that failed."""
    config = SearchExperiment.model_validate(
        {
            "model": {"weights": "random"},
            "output": str(tmp_path / "runs"),
            "name": "search-mine",
            "search": {"tuner": "grid", "spaces": {"model.branches": {"subsets": ["vgg16", "b"]}}},
        }
    )
    study = Study.open(config)
    for number, (branches, count) in enumerate(
        ((["vgg16"], 150), (["densenet121"], 200), (["resnet50"], None))
    ):
        values = {"model.branches": branches}
        if count is None:
            study.write(TrialRecord(number, "failed", values, reason="none"))
            continue
        trial = study.trial(number)
        trial.write_settings(make_settings(branches))
        write_predictions(trial, predict(range(count)))
        study.write(TrialRecord(number, "completed", values, {"val_macro_f1": count / 300}))
    return study.folder


def test_the_trials_of_a_search_come_best_first(search_folder, capsys):
    assert main(compare(search_folder)) == 0

    names = [candidate.name for candidate in read_candidates([search_folder])]
    assert names == ["search-mine/0001", "search-mine/0000"]
    trial = search_folder / "trials" / "0000"
    assert [c.name for c in read_candidates([trial, search_folder])] == names[::-1]
    assert "worse" in capsys.readouterr().out


def test_the_folder_holds_figures_text_and_curves(search_folder, tmp_path, capsys):
    output = tmp_path / "compared"

    main(compare(search_folder, output=output))

    assert {path.name for path in output.iterdir()} == {
        "comparison.txt", "comparison.csv", "curves.png", "scores.png",
    }  # fmt: skip
    Image.open(output / "curves.png").verify()
    assert (output / "comparison.txt").read_text() in capsys.readouterr().out.replace(
        f"\n{output}/ holds", f"{output}/ holds"
    )
    with (output / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["branches"] for row in rows] == ["densenet121", "vgg16"]
    assert float(rows[1]["gain"]) == pytest.approx(-50 / 300)
    assert float(rows[0]["accuracy_low"]) < 200 / 300 < float(rows[0]["accuracy_high"])


def test_models_of_one_build_are_measured_once_and_parameters_counted(
    write_run, tiny, tmp_path, capsys
):
    first, second, third = (
        write_run(
            name,
            predict(range(200)),
            data={"image_size": 16},
            model={"branches": branches, "head": "linear"},
            training={"epochs": epochs},
        )
        for name, branches, epochs in (
            ("one", [tiny], 3),
            ("two", [tiny], 9),
            ("three", [tiny, f"{tiny}:b"], 3),
        )
    )
    candidates = read_candidates([first, second, third])

    costs = measure_costs(candidates)

    expected = [
        build_model(
            branches, classes=CLASSES, image_size=16, weights="random", head="linear"
        ).model.count_params()
        for branches in ([tiny], [tiny], [tiny, f"{tiny}:b"])
    ]
    assert [cost.parameters for cost in costs] == expected
    assert costs[0] is costs[1]
    assert all(cost.single > 0 and cost.batch > 0 for cost in costs)

    output = tmp_path / "compared"
    assert main(["--output", str(output), str(first), str(third)]) == 0
    Image.open(output / "tradeoff.png").verify()
    assert f"{expected[2]:,}" in capsys.readouterr().out
