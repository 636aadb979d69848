"""Laws of evaluations: each is of the images it names, and none replaces another."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from configs.errors import DataError
from configs.schema import DataConfig, ExperimentConfig
from ensemble.commands.evaluate.__main__ import main as evaluate
from ensemble.experiment import fit
from ensemble.metrics.evaluating import evaluate_run
from ensemble.runs.run import Run

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture
def run(make_config: MakeConfig) -> Run:
    return fit(make_config(training={"epochs": 1})).run


@pytest.fixture
def other(colours_folder: Path) -> Path:
    """Images of both classes that the run does not have."""
    folder = colours_folder.parent / "other"
    write_colours(folder, 1)
    return folder


def write_colours(folder: Path, seed: int, count: int = 6) -> None:
    generator = np.random.default_rng(seed)
    for label, channel in (("blue", 2), ("red", 0)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 160, (24, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 80
            Image.fromarray(pixels).save(folder / label / f"new{seed}-{number}.png")


def names_of(run: Run, part: str) -> list[str]:
    return [row["path"] for row in run.read_table("split.csv") if row["split"] == part]


def written(run: Run, folder: str) -> dict:
    return json.loads((run.folder / folder / "report.json").read_text("utf-8"))


def test_the_recorded_images_are_evaluated_whatever_was_added(run, colours_folder):
    write_colours(colours_folder, 2, count=20)

    report, _ = evaluate_run(run)

    assert list(report.predictions.names) == names_of(run, "validation")
    assert report.problems == []
    assert report.trained_on.duplicates == []


def test_missing_and_changed_images_are_reported_everywhere(run, colours_folder, caplog):
    missing, changed, *_ = names_of(run, "validation")
    (colours_folder / missing).unlink()
    Image.new("RGB", (24, 24)).save(colours_folder / changed)

    assert evaluate([str(run.folder)]) == 0

    assert "1 missing or unreadable, 1 changed since the training" in caplog.text
    (folder,) = (run.folder / "evaluations").iterdir()
    content = json.loads((folder / "report.json").read_text())
    assert [problem["name"] for problem in content["problems"]] == [missing, changed]
    assert "8 of the 10 recorded images" in content["facts"]["Split"]
    assert "changed since the training" in (folder / "report.md").read_text()


def test_a_run_whose_images_are_gone_costs_a_sentence(run, colours_folder, capsys):
    colours_folder.rename(colours_folder.with_name("away"))

    assert evaluate([str(run.folder)]) == 2

    assert capsys.readouterr().err.count("\n") == 1


def test_training_images_among_other_data_are_reported(run, other, colours_folder, capsys):
    exact, mirrored, *_ = names_of(run, "train")
    for name in (exact, mirrored):
        (other / name).write_bytes((colours_folder / name).read_bytes())
    ImageOps.mirror(Image.open(other / mirrored)).save(other / mirrored)
    clean, _ = evaluate_run(run, DataConfig(root=[other]), part="all")
    assert clean.trained_on.kinds == {"exact": 1, "mirrored": 1}

    assert evaluate([str(run.folder), "--data", str(other)]) == 0

    warning = "2 of these 14 images were trained on (1 exact, 1 mirrored)"
    assert warning in capsys.readouterr().out
    (folder,) = (run.folder / "evaluations").iterdir()
    text = (folder / "report.md").read_text()
    assert warning in text
    assert "Without the images that the model was trained on\n\nMeasured on 12 images" in text
    content = json.loads((folder / "report.json").read_text())
    assert content["trained_on"]["images"] == 2
    assert content["trained_on"]["metrics_without"]["images"] == 12
    assert len((folder / "duplicates.csv").read_text().splitlines()) == 3


def test_metrics_without_training_images_are_those_of_the_other_images(run, other):
    alone, _ = evaluate_run(run, DataConfig(root=[other]))
    assert alone.trained_on.duplicates == []
    name = names_of(run, "train")[0]
    (other / name).write_bytes((run.config.data.root[0] / name).read_bytes())

    report, _ = evaluate_run(run, DataConfig(root=[other]))

    assert report.metrics.images == 13
    assert report.unseen_metrics is not None
    assert report.unseen_metrics.confusion == alone.metrics.confusion
    assert report.unseen_metrics.per_class == alone.metrics.per_class


def test_the_own_training_images_are_called_so(run):
    report, _ = evaluate_run(run, part="train")

    assert "38 of these 38 images were trained on (38 exact)" in report.warnings[0]
    assert "no other images remain" in report.warnings[0]
    assert report.unseen_metrics is None


def test_exact_copies_are_found_where_the_training_images_are_gone(run, other, colours_folder):
    name = names_of(run, "train")[0]
    (other / name).write_bytes((colours_folder / name).read_bytes())
    colours_folder.rename(colours_folder.with_name("away"))

    report, _ = evaluate_run(run, DataConfig(root=[other]))

    assert report.trained_on.kinds == {"exact": 1}
    assert any("only exact copies" in warning for warning in report.warnings)


def test_known_duplicates_of_training_images_count_in_the_own_validation(
    make_config, colours_folder
):
    data = colours_folder.parent / "parts"
    for label in ("blue", "red"):
        for number in range(24):
            part = "train" if number < 16 else "val"
            target = data / part / label / f"{number:02}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((colours_folder / label / target.name).read_bytes())
    (data / "val" / "red" / "twin.png").write_bytes((colours_folder / "red/00.png").read_bytes())
    run = fit(make_config(data={"root": [data]}, training={"epochs": 1})).run

    report, _ = evaluate_run(run)

    assert report.trained_on.names == {"val/red/twin.png"}
    assert report.unseen_metrics.images == 16


def test_evaluations_of_different_inputs_have_folders_of_their_own(run, other, tmp_path):
    write_colours(tmp_path / "copy" / "other", 1)
    data = DataConfig(root=[other])
    folders = [
        evaluate_run(run)[1],
        evaluate_run(run, flip=True)[1],
        evaluate_run(run, part="train")[1],
        evaluate_run(run, data)[1],
        evaluate_run(run, data, flip=True)[1],
        evaluate_run(run, data, shared={"red": ["red"]})[1],
        evaluate_run(run, data, shared={"red": ["blue"], "blue": ["red"]})[1],
        evaluate_run(run, data.model_copy(update={"merge": {"red": ["blue"], "blue": ["red"]}}))[1],
        evaluate_run(run, DataConfig(root=[tmp_path / "copy" / "other"]))[1],
    ]
    Image.new("RGB", (24, 24)).save(next((other / "red").iterdir()))
    folders.append(evaluate_run(run, data)[1])

    assert len(set(folders)) == len(folders)
    assert len(list((run.folder / "evaluations").iterdir())) == len(folders)
    assert evaluate_run(run, data)[1] == folders[-1]


def test_images_of_other_classes_are_counted_on_screen(run, other, caplog):
    (other / "green").mkdir()
    for number in range(3):
        Image.new("RGB", (24, 24), (0, 200, number)).save(other / "green" / f"{number}.png")

    evaluate([str(run.folder), "--data", str(other)])

    assert "3 images of other classes are left out: green 3" in caplog.text


def test_a_part_that_the_run_does_not_have_is_named(run):
    with pytest.raises(DataError, match=r"no test images.*--split"):
        evaluate_run(run, part="test")
