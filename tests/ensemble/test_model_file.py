"""What a hostile or damaged model file comes to: one sentence, and nothing is run."""

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from configs.errors import RunError
from ensemble.model import MultiBranchModel, build_model


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.target,)


@pytest.fixture
def model(tiny: str, tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    build_model([tiny], classes="ab", image_size=16, weights="random").model.save(path)
    return path


def rewrite(model: Path, change: Callable[[dict[str, Any]], object], **options: Any) -> Path:
    """Writes the model file anew with its configuration changed."""
    with zipfile.ZipFile(model) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(model, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return model


def find(node: Any, class_name: str) -> dict[str, Any]:
    """Returns the first object of a class in a configuration."""
    if isinstance(node, dict):
        if node.get("class_name") == class_name:
            return node
        node = list(node.values())
    if isinstance(node, list):
        return next((found for child in node if (found := find(child, class_name))), {})
    return {}


def assert_refused(path: Path, *told: str) -> None:
    with pytest.raises(RunError) as caught:
        MultiBranchModel.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path} holds no ensemble that can be loaded (")
    assert "\n" not in text
    assert len(text) < 300 + len(str(path))
    for words in told:
        assert words in text


def test_a_sound_file_rewritten_as_it_is_loads(model):
    assert MultiBranchModel.load(rewrite(model, dict)).classes == ("a", "b")


def test_code_in_a_lambda_layer_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = keras.Input((4,))
    layer = keras.layers.Lambda(lambda x: (Path("ran").touch(), x)[1], output_shape=(4,))
    keras.Model(image, layer(image)).save("model.keras")
    Path("ran").unlink(missing_ok=True)

    assert_refused(tmp_path / "model.keras", "it holds code, a Lambda layer")
    assert not Path("ran").exists()


def test_pickle_bytes_are_not_unpickled(model, tmp_path):
    ran = tmp_path / "ran"
    attack = pickle.dumps(Bomb(ran))
    model.write_bytes(attack)
    assert_refused(model, "damaged or no .keras file")
    with zipfile.ZipFile(model, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, attack)
    assert_refused(model)
    assert not ran.exists()


def test_a_file_of_another_ending_is_no_way_round(model):
    other = model.rename(model.with_suffix(".h5"))
    other.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))

    assert_refused(other, "no .keras file")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused(model, share):
    content = model.read_bytes()
    model.write_bytes(content[: int(share * len(content))])

    assert_refused(model)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_damaged_member_is_refused(model, name):
    content = bytearray(model.read_bytes())
    with zipfile.ZipFile(model) as archive:
        entry = archive.getinfo(name)
    middle = entry.header_offset + 60 + entry.file_size // 2
    content[middle : middle + 200] = bytes(200)
    model.write_bytes(content)

    assert_refused(model)


def test_an_archive_that_unpacks_to_more_than_it_is_is_not_unpacked(model):
    rewrite(
        model, lambda config: config.update(x=" " * 10_000_000), compression=zipfile.ZIP_DEFLATED
    )
    assert model.stat().st_size < 200_000

    assert_refused(model, "it is compressed")


def test_a_configuration_of_gigabytes_is_not_read(model, monkeypatch):
    monkeypatch.setattr("ensemble.model_file._CONFIG_LIMIT", 1000)

    assert_refused(model, "its config.json is larger than that of any model")


@pytest.mark.parametrize("units", [10**7, 10**9, 10**15])
def test_a_layer_wider_than_the_weights_is_not_built(model, units):
    def widen(config: dict[str, Any]) -> None:
        find(config, "Dense")["config"]["units"] = units

    assert_refused(rewrite(model, widen), f"its units of {units} are more than its weights")


def test_a_class_that_nobody_registered_is_named(model):
    def replace(config: dict[str, Any]) -> None:
        find(config, "Dense").update(module="os", class_name="system", registered_name="os>system")

    assert_refused(rewrite(model, replace), "it needs 'os>system'")


def test_a_foreign_function_is_not_called(model, tmp_path):
    def replace(config: dict[str, Any]) -> None:
        found = find(config, "Dense")
        found.update(module="os", class_name="mkdir", registered_name=None)
        found["config"] = {"path": str(tmp_path / "ran")}

    assert_refused(rewrite(model, replace))
    assert not (tmp_path / "ran").exists()


def test_deep_nesting_is_refused(model):
    with zipfile.ZipFile(model) as archive:
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("config.json", "[" * 200_000 + "]" * 200_000)
        archive.writestr("model.weights.h5", weights)

    assert_refused(model)


def test_another_model_is_no_ensemble(tmp_path):
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(image)).save(tmp_path / "model.keras")

    assert_refused(tmp_path / "model.keras", "it is another kind of model")


def test_class_names_that_do_not_fit_the_answers_are_refused(model):
    def rename(config: dict[str, Any]) -> None:
        find(config, "ClassProbabilities")["config"]["classes"] = ["a", "b", "c"]

    assert_refused(rewrite(model, rename), "class names do not fit")


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), "hot"])
def test_a_temperature_that_is_none_is_refused(model, temperature):
    def change(config: dict[str, Any]) -> None:
        find(config, "ClassProbabilities")["config"]["temperature"] = temperature

    assert_refused(rewrite(model, change))


LOAD = "import sys; from ensemble import MultiBranchModel as M; print(M.load(sys.argv[1]).classes)"


def test_a_model_that_was_compiled_loads_in_a_process_that_never_trained(tiny, tmp_path):
    from ensemble.training.optimizers import FusedAdam

    ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
    ensemble.classifier.compile(FusedAdam(), "categorical_crossentropy")
    ensemble.model.save(tmp_path / "model.keras")

    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )

    assert done.stdout.strip() == "('a', 'b')", done.stderr[-500:]
