import csv
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from configs.errors import DataError, RunError, WeightsError
from configs.files import read_config
from configs.schema import DataConfig, ExperimentConfig
from ensemble.experiment import FitResult, fit
from ensemble.metrics.evaluating import evaluate_run
from ensemble.runs.run import Run

pytestmark = pytest.mark.backend

MakeConfig = Callable[..., ExperimentConfig]

FILES = {
    "config.yaml", "environment.json", "split.csv", "model.keras", "history.csv", "log.txt",
    "card.md", "classes.png", "curves.png", "confusion.png", "confusion.csv", "errors.png",
    "predictions.csv", "reliability.png", "report.json", "report.md", "risk_coverage.png",
    "samples.png",
}  # fmt: skip


def history_of(result: FitResult) -> list[dict[str, str]]:
    with (result.run.folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows


def predictions_of(run: Run, folder: str = ".") -> dict[str, dict[str, str]]:
    with (run.folder / folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_a_run_folder_holds_everything_and_the_model_has_learned(make_config: MakeConfig):
    result = fit(make_config(training={"epochs": 15}))

    assert {path.name for path in result.run.folder.iterdir()} == FILES
    assert result.report.metrics.accuracy > 0.8
    assert result.report.metrics.scores["accuracy"].baseline == 0.5
    assert str(result.run.folder) in result.summary()
    for picture in result.run.folder.glob("*.png"):
        Image.open(picture).verify()
    record = json.loads((result.run.folder / "environment.json").read_text())
    assert record["backend"] == keras.config.backend()
    assert len(record["weights"]["tiny"]["sha256"]) == 64
    assert record["data"]["train"]["images"] + record["data"]["validation"]["images"] == 48


def test_every_validation_image_is_judged(make_config: MakeConfig):
    result = fit(make_config(data={"validation_fraction": 0.3}, training={"batch_size": 7}))

    assert result.report.metrics.images == len(predictions_of(result.run)) == 14


def test_the_stored_config_repeats_the_run(make_config: MakeConfig):
    first = fit(make_config())
    stored = ExperimentConfig.model_validate(read_config(str(first.run.folder / "config.yaml")))
    again = fit(stored.model_copy(update={"name": "again"}))

    assert history_of(again) == history_of(first)
    assert predictions_of(again.run) == predictions_of(first.run)
    assert (again.run.folder / "split.csv").read_text() == (
        first.run.folder / "split.csv"
    ).read_text()


def test_another_seed_gives_another_history(make_config: MakeConfig):
    config = make_config()
    other = fit(config.model_copy(update={"seed": 2, "name": "other"}))

    assert history_of(fit(config)) != history_of(other)


def test_the_saved_split_reads_as_labels_of_the_same_images(make_config, colours_folder):
    first = fit(make_config())
    labels = first.run.folder / "split.csv"

    again = fit(make_config(data={"labels": labels}).model_copy(update={"name": "again"}))

    assert history_of(again) == history_of(first)


def test_predictions_follow_the_names_of_classes_and_not_their_order(make_config, colours_folder):
    result = fit(make_config(data={"classes": ["red", "blue"]}, training={"epochs": 15}))
    assert result.ensemble.classes == ("red", "blue")
    assert result.report.metrics.accuracy > 0.8

    # The folders alone would be read in the order blue, red.
    _, folder = evaluate_run(result.run, DataConfig(root=[colours_folder]))

    judged_again = predictions_of(result.run, folder)
    for name, row in predictions_of(result.run).items():
        assert judged_again[name]["label"] == row["label"] == Path(name).parent.name
        assert judged_again[name]["predicted"] == row["predicted"]
        assert float(judged_again[name]["blue"]) == pytest.approx(float(row["blue"]), abs=1e-5)


def test_class_folders_listed_in_another_order_give_the_same_run(make_config, monkeypatch):
    first = fit(make_config())
    walk = os.walk

    def backwards(*args, **kwargs):
        for parent, folders, files in walk(*args, **kwargs):
            folders.reverse()
            files.reverse()
            yield parent, folders, files

    monkeypatch.setattr(os, "walk", backwards)
    again = fit(make_config().model_copy(update={"name": "again"}))

    assert history_of(again) == history_of(first)
    assert predictions_of(again.run) == predictions_of(first.run)


def test_evaluation_repeats_the_report(make_config: MakeConfig):
    result = fit(make_config())

    report, folder = evaluate_run(Run.open(result.run.folder))

    assert report.metrics.confusion == result.report.metrics.confusion
    assert report.majority == result.report.majority
    np.testing.assert_allclose(
        report.predictions.probabilities, result.report.predictions.probabilities, atol=1e-5
    )
    assert (result.run.folder / folder / "report.md").is_file()


def test_evaluation_with_mirror_images_averages_both_answers(
    make_config: MakeConfig, colours_folder: Path
):
    result = fit(make_config(data={"image_size": 24}))

    report, folder = evaluate_run(result.run, flip=True)

    faces = np.stack(
        [np.array(Image.open(colours_folder / name)) for name in report.predictions.names]
    )
    plain = result.ensemble.model.predict(faces.astype("float32"), verbose=0)
    mirrored = result.ensemble.model.predict(faces[:, :, ::-1].astype("float32"), verbose=0)
    np.testing.assert_allclose(report.predictions.probabilities, (plain + mirrored) / 2, atol=1e-6)
    assert np.abs(report.predictions.probabilities - plain).max() > 1e-4
    assert report.subject.endswith("with mirror images")
    assert "mirror image" in report.facts["Predictions"]
    assert folder.startswith("evaluations/colours-validation-flip-")


def test_evaluation_judges_other_data_by_class_name(make_config: MakeConfig, tmp_path: Path):
    result = fit(make_config(training={"epochs": 15}))
    for new, old in (("a", "red"), ("b", "blue")):
        shutil.copytree(tmp_path / "colours" / old, tmp_path / "other" / new)
    data = DataConfig.model_validate({"root": tmp_path / "other", "merge": "blue=b,red=a"})

    report, folder = evaluate_run(result.run, data)

    assert report.metrics.images == 48
    assert report.metrics.accuracy > 0.8
    assert folder.startswith("evaluations/other-all-")


def test_evaluation_of_data_without_a_class_names_it(make_config: MakeConfig, tmp_path: Path):
    result = fit(make_config())
    shutil.copytree(tmp_path / "colours" / "blue", tmp_path / "other" / "blue")
    shutil.copytree(tmp_path / "colours" / "blue", tmp_path / "other" / "middle")

    with pytest.raises(DataError, match="red"):
        evaluate_run(result.run, DataConfig(root=[tmp_path / "other"]))


def test_a_run_is_judged_on_shared_classes_and_by_group(make_config, tmp_path, colours_folder):
    green = colours_folder / "green"
    green.mkdir()
    for number in range(24):
        pixels = np.zeros((24, 24, 3), np.uint8)
        pixels[..., 1] = 150 + number
        Image.fromarray(pixels).save(green / f"{number:02}.png")
    result = fit(make_config(training={"epochs": 15}))
    rows = ["path,label,Lamp"]
    for label, old in (("blue", "blue"), ("scarlet", "red"), ("grass", "green")):
        shutil.copytree(tmp_path / "colours" / old, tmp_path / "other" / label)
        rows += [f"{label}/{n:02}.png,{label},{'day' if n % 3 else ''}" for n in range(24)]
    (tmp_path / "other" / "table.csv").write_text("\n".join(rows))
    data = DataConfig(root=[tmp_path / "other"])

    report, folder = evaluate_run(result.run, data, shared={"red": ["scarlet"]}, group="lamp")

    assert report.classes == ("blue", "red")
    assert report.metrics.images == 48
    np.testing.assert_allclose(report.predictions.probabilities.sum(axis=1), 1)
    assert "2 shared classes of 3" in report.facts["Shared classes"]
    assert "24 images of other classes are left out: grass 24" in report.facts["Labels"]
    assert [(group.name, group.images) for group in report.groups.groups] == [("day", 32)]
    assert report.groups.ungrouped == 16
    assert folder.startswith("evaluations/other-all-shared-")
    written = json.loads((result.run.folder / folder / "report.json").read_text())
    assert written["classes"] == ["blue", "red"]
    with pytest.raises(
        DataError, match=r"Unknown column of table\.csv 'lamb'\. Did you mean 'lamp'"
    ):
        evaluate_run(result.run, data, shared={"red": ["scarlet"]}, group="lamb")


def test_bad_images_are_listed_and_skipped(make_config: MakeConfig, colours_folder: Path):
    (colours_folder / "blue" / "empty.png").write_bytes(b"")
    (colours_folder / "blue" / "text.png").write_text("not a picture")
    whole = (colours_folder / "blue" / "00.png").read_bytes()
    (colours_folder / "red" / "größe ñ.png").write_bytes(whole[: len(whole) // 2])
    (colours_folder / "red" / "nowhere.png").symlink_to(colours_folder / "gone.png")

    result = fit(make_config())

    with (result.run.folder / "bad_images.csv").open(encoding="utf-8", newline="") as file:
        rows = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert set(rows) == {"empty.png", "text.png", "größe ñ.png", "nowhere.png"}
    assert all(rows.values())
    assert len(result.report.problems) == 4
    with (result.run.folder / "split.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 48


def test_a_class_of_bad_images_alone_is_an_error_that_names_it(make_config, colours_folder):
    for path in (colours_folder / "blue").iterdir():
        path.write_bytes(b"broken")

    with pytest.raises(DataError, match="Class 'blue' has no training image that can be read"):
        fit(make_config())


def test_real_data_never_trains_on_random_weights_unasked(make_config: MakeConfig, tmp_path: Path):
    with pytest.raises(WeightsError):
        fit(make_config(model={"weights": "imagenet"}))
    assert not (tmp_path / "runs").exists()


def test_the_demo_goes_on_with_random_weights_and_says_so(make_config: MakeConfig, caplog):
    config = make_config(
        data={"root": [], "classes": ["happy", "surprise"], "views": 1},
        model={"weights": "imagenet"},
        training={"epochs": 1},
    )

    with caplog.at_level(logging.WARNING, "ensemble"):
        result = fit(config)

    assert "RANDOM WEIGHTS" in caplog.text
    assert result.run.config.model.weights == "random"


def test_a_name_that_is_taken_is_told_before_the_work(make_config: MakeConfig, tmp_path: Path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)

    with pytest.raises(RunError, match="mine is there already"):
        fit(make_config().model_copy(update={"name": "mine"}))


def test_a_weights_file_is_recorded_with_its_checksum(make_config, tiny, tmp_path):
    from branches.builder import build_branch
    from branches.checksums import file_checksum

    path = tmp_path / "tiny.weights.h5"
    build_branch(tiny, input_shape=(16, 16, 3), weights="random", seed=9).save_weights(path)

    result = fit(make_config(model={"weights": {tiny: str(path)}}))

    record = json.loads((result.run.folder / "environment.json").read_text())["weights"][tiny]
    assert record["source"] == str(path)
    assert record["file_sha256"] == file_checksum(path)


def test_the_saved_model_is_calibrated_and_answers_what_it_did(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ensemble.metrics.calibration._MIN_MISTAKES", 1)  # of few images
    settings = {"epochs": 1, "learning_rate": 1e-4}
    data = {"validation_fraction": 0.5}
    plain = fit(make_config(data=data, training={**settings, "calibrate": False}))
    calibrated = fit(make_config(data=data, training=settings))
    run = calibrated.run
    record = json.loads((run.folder / "report.json").read_text())["calibration"]
    without = json.loads((plain.run.folder / "report.json").read_text())["calibration"]

    assert 0 < plain.report.metrics.accuracy < 1  # or there would be nothing to fit
    assert plain.ensemble.temperature == without["temperature"] == 1
    assert run.load_model().temperature == record["temperature"] != 1
    assert record["same_images"]
    assert record["before"] == pytest.approx(without["after"], abs=1e-5)
    assert record["after"]["nll"] < record["before"]["nll"]
    assert history_of(calibrated) == history_of(plain)

    report, folder = evaluate_run(run)
    first, again, unfitted = (
        predictions_of(run), predictions_of(run, folder), predictions_of(plain.run)
    )  # fmt: skip
    assert report.calibration.to_dict()["same_images"]
    for name, row in first.items():
        assert row["predicted"] == again[name]["predicted"] == unfitted[name]["predicted"]
        assert float(row["red"]) == pytest.approx(float(again[name]["red"]), abs=1e-5)
