"""Laws of late fusion: the model answers what the rule says, and is judged on what it never saw."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from configs.errors import DataError, RunError
from configs.schema import ExperimentConfig
from ensemble.commands.fuse.__main__ import main
from ensemble.commands.fuse.fusing import fuse_models, fuse_runs
from ensemble.commands.fuse.rules import Mean, Method, Stack, fit_rule, predict_out_of_fold
from ensemble.experiment import fit
from ensemble.metrics.calibration import apply_temperature
from ensemble.metrics.evaluating import evaluate_run
from ensemble.model.composition import MultiBranchModel, build_model
from ensemble.runs.run import Run

MakeConfig = Callable[..., ExperimentConfig]


def make_answers(models: int, images: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities that lean towards the labels, the first model's most."""
    random = np.random.default_rng(models + images)
    labels = random.integers(0, num_classes, images)
    logits = random.normal(size=(models, images, num_classes))
    logits[:, np.arange(images), labels] += np.linspace(2, 0.5, models)[:, None]
    shares = np.exp(logits)
    return shares / shares.sum(axis=2, keepdims=True), labels


def make_faces(count: int) -> np.ndarray:
    """Returns pictures from dark to bright."""
    noise = np.random.default_rng(5).uniform(0, 1, (count, 16, 16, 3))
    return (noise * np.linspace(5, 255, count)[:, None, None, None]).astype("float32")


@pytest.fixture
def make_models(tiny) -> Callable[[list[str]], list[MultiBranchModel]]:
    def make(classes: list[str], seeds: tuple[int, ...] = (1, 2)) -> list[MultiBranchModel]:
        models = []
        for number, seed in enumerate(seeds):
            keras.utils.set_random_seed(number)
            models.append(
                build_model(
                    [tiny], classes=classes, image_size=16, weights="random", head="linear",
                    seed=seed,
                )
            )  # fmt: skip
        return models

    return make


def reload(ensemble: MultiBranchModel, folder: Path) -> MultiBranchModel:
    ensemble.save(folder / "model.keras")
    return MultiBranchModel.load(folder / "model.keras")


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.2, 0.8], [0.0, 1.0]])
def test_the_fused_model_answers_the_mean_also_when_loaded(weights, make_models, tmp_path):
    members, faces = make_models(["a", "b", "c"]), make_faces(6)
    first, second = (member.model.predict(faces, verbose=0) for member in members)

    fused = reload(fuse_models(members, Mean(np.array(weights))), tmp_path)

    expected = weights[0] * first + weights[1] * second
    np.testing.assert_allclose(fused.model.predict(faces, verbose=0), expected, atol=1e-6)
    assert np.abs(first - second).max() > 1e-3
    assert fused.classes == ("a", "b", "c")
    assert fused.image_size == 16


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"]])
def test_the_stacked_model_answers_what_scikit_learn_predicts(classes, make_models, tmp_path):
    members, faces = make_models(classes), make_faces(20)
    answers = np.stack([member.model.predict(faces, verbose=0) for member in members])
    labels = np.arange(20) * len(classes) // 20
    regression = LogisticRegression(max_iter=2000).fit(np.hstack([*answers]), labels)
    expected = regression.predict_proba(np.hstack([*answers]))

    rule = fit_rule("stacking", answers, labels)
    fused = reload(fuse_models(members, rule), tmp_path)

    np.testing.assert_allclose(rule.combine(answers), expected, atol=1e-6)
    np.testing.assert_allclose(fused.model.predict(faces, verbose=0), expected, atol=1e-6)
    assert np.abs(expected - 1 / len(classes)).max() > 1e-3


def test_a_branch_that_members_share_is_run_once(make_models):
    faces = make_faces(3)
    alike = fuse_models(make_models(["a", "b"], seeds=(1, 1)), Mean(np.array([0.5, 0.5])))
    others = make_models(["a", "b"], seeds=(1, 2, 1))
    expected = np.mean([member.model.predict(faces, verbose=0) for member in others], axis=0)
    unlike = fuse_models(others, Mean(np.full(3, 1 / 3)))

    assert list(alike.extractor.output) == ["tiny"]
    assert list(unlike.extractor.output) == ["tiny", "tiny:2"]
    np.testing.assert_allclose(unlike.model.predict(faces, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(
        unlike.classifier.predict(unlike.extractor.predict(faces, verbose=0), verbose=0),
        expected,
        atol=1e-6,
    )


def test_fused_models_can_be_fused_again(make_models):
    faces, members = make_faces(3), make_models(["a", "b"], seeds=(1, 2, 3))
    expected = sum(
        weight * member.model.predict(faces, verbose=0)
        for weight, member in zip((0.25, 0.25, 0.5), members, strict=True)
    )
    pair = fuse_models(members[:2], Mean(np.array([0.5, 0.5])))

    fused = fuse_models([pair, members[2]], Mean(np.array([0.5, 0.5])))

    np.testing.assert_allclose(fused.model.predict(faces, verbose=0), expected, atol=1e-6)


def test_fitted_weights_make_the_labels_most_probable():
    probabilities, labels = make_answers(2, 200, 3)
    first, second = probabilities[:, np.arange(200), labels]
    best = minimize_scalar(
        lambda share: -np.log(share * first + (1 - share) * second).sum(),
        bounds=(0, 1),
        method="bounded",
    ).x

    rule = fit_rule("weighted", probabilities, labels)

    assert isinstance(rule, Mean)
    np.testing.assert_allclose(rule.weights, [best, 1 - best], atol=1e-3)
    assert 0.5 < best < 1


def test_answers_out_of_fold_are_those_of_rules_fitted_on_the_other_folds():
    probabilities, labels = make_answers(3, 90, 3)
    groups = [f"photo {row // 2}" for row in range(90)]
    expected = np.empty((90, 3))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=7)
    features = np.hstack([*probabilities])
    for kept, held_out in folds.split(labels, labels, [f"group {name}" for name in groups]):
        assert not {groups[row] for row in kept} & {groups[row] for row in held_out}
        model = LogisticRegression(max_iter=2000).fit(features[kept], labels[kept])
        expected[held_out] = model.predict_proba(features[held_out])

    answers = predict_out_of_fold(
        "stacking", probabilities, labels, classes=["a", "b", "c"], groups=groups, seed=7
    )

    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_stacking_of_noise_is_not_flattered():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), size=(12, 120))
    labels = random.integers(0, 4, 120)

    seen = fit_rule("stacking", probabilities, labels).combine(probabilities)
    unseen = predict_out_of_fold(
        "stacking", probabilities, labels, classes=list("abcd"), groups=[None] * 120, seed=1
    )

    assert isinstance(fit_rule("stacking", probabilities, labels), Stack)
    assert (seen.argmax(axis=1) == labels).mean() > 0.45
    assert (unseen.argmax(axis=1) == labels).mean() < 0.38


def test_a_class_too_small_for_two_folds_is_named():
    probabilities, labels = make_answers(2, 30, 2)
    labels[:] = 0
    labels[3] = 1

    with pytest.raises(DataError, match="Class 'b' has too few validation images"):
        predict_out_of_fold(
            "weighted", probabilities, labels, classes=["a", "b"], groups=[None] * 30, seed=1
        )


@pytest.fixture
def two_runs(make_config: MakeConfig) -> list[Run]:
    """Runs of the same split whose heads differ."""
    return [
        fit(
            make_config(model={"head": head}, training={"epochs": 1}).model_copy(
                update={"name": name}
            )
        ).run
        for name, head in (("one", "linear"), ("two", "dense"))
    ]


def predictions_of(folder: Path) -> dict[str, np.ndarray]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {row["name"]: np.array([float(row["blue"]), float(row["red"])]) for row in rows}


def test_runs_are_fused_into_runs_that_can_be_judged_again(two_runs, tmp_path):
    results = {method: fuse_runs(two_runs, method, name=method) for method in get_args(Method)}

    first, second = (predictions_of(run.folder) for run in two_runs)
    mean = {name: (first[name] + second[name]) / 2 for name in first}
    for method, result in results.items():
        assert result.run.folder == tmp_path / "runs" / method
        record = json.loads((result.run.folder / "fusion.json").read_text())
        assert record["method"] == method
        assert record["members"] == ["../one", "../two"]
        assert ("out of fold" in str(result.report.facts)) == (method != "average")
        temperature = result.ensemble.temperature
        assert result.report.calibration.temperature == temperature
        report, folder = evaluate_run(Run.open(result.run.folder))
        assert report.calibration.temperature == temperature
        assert report.metrics.images == len(mean)
        assert report.metrics.scores["accuracy"].baseline == 0.5
        if method == "average":
            for place in (".", folder):
                for name, answer in predictions_of(result.run.folder / place).items():
                    (expected,) = apply_temperature(mean[name][None], temperature)
                    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_runs_that_do_not_go_together_are_told_in_a_sentence(two_runs):
    one = two_runs[0].folder

    def changed(name: str, file: str, old: str, new: str) -> Run:
        folder = shutil.copytree(one, one.parent / name)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        return Run.open(folder)

    for other, told in (
        (
            changed("other", "predictions.csv", "blue/", "other/blue/"),
            r"was not validated on the images of .*split\.csv",
        ),
        (
            changed("larger", "config.yaml", "image_size: 16", "image_size: 20"),
            "another image size .* 20 and not 16",
        ),
        (
            changed("swapped", "predictions.csv", "confidence,blue,red", "confidence,red,blue"),
            "has the classes red, blue and",
        ),
    ):
        with pytest.raises(RunError, match=told):
            fuse_runs([two_runs[0], other], "average", name="fused")
    with pytest.raises(RunError, match="two runs at least"):
        fuse_runs(two_runs[:1], "average", name="fused")
    assert not (one.parent / "fused").exists()


def test_the_command_fuses(two_runs, capsys):
    folders = [str(run.folder) for run in two_runs]

    assert main([*folders, "--method", "average", "--name", "late"]) == 0
    assert "the best member" in capsys.readouterr().out
    assert main([*folders, "--name", "late"]) == 2
    assert "is there already" in capsys.readouterr().err
