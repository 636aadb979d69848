"""Model files: hostile and damaged ones are refused in one sentence, earlier ones load."""

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from configs.errors import RunError
from ensemble.commands.fuse.fusing import fuse_models
from ensemble.commands.fuse.rules import Mean
from ensemble.model import legacy_layers as legacy
from ensemble.model.composition import MultiBranchModel, build_model

CLASSES = ("b", "a")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.target,)


@pytest.fixture
def model(tiny: str, tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    build_model([tiny], classes="ab", image_size=16, weights="random").save(path)
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


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yields all objects of a configuration."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from objects(child)


def find(node: Any, class_name: str) -> dict[str, Any]:
    """Returns the first object of a class in a configuration."""
    return next(entry for entry in objects(node) if entry.get("class_name") == class_name)


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
    monkeypatch.setattr("ensemble.model.model_file._CONFIG_LIMIT", 1000)

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


LOAD = "import sys; from ensemble import MultiBranchModel as M; print(M.load(sys.argv[1]).classes)"


def test_a_model_that_was_compiled_loads_in_a_process_that_never_trained(tiny, tmp_path):
    from ensemble.model.optimizers import FusedAdam

    ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
    ensemble.classifier.compile(FusedAdam(), "categorical_crossentropy")
    ensemble.save(tmp_path / "model.keras")

    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )

    assert done.stdout.strip() == "('a', 'b')", done.stderr[-500:]


@pytest.fixture
def earlier(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Builds models of the layers that earlier versions used."""
    replacements = {
        "branches.preprocessing.scale_pixels": lambda images, scaling: legacy.ImageNetPreprocessing(
            scaling, name="scaling", dtype="float32"
        )(images),
        "ensemble.model.fusion.average_areas": lambda maps, height, width: legacy.AreaPooling(
            height, width
        )(maps),
        "ensemble.model.composition.class_probabilities": probabilities,
        "ensemble.commands.fuse.fusing.class_probabilities": probabilities,
        "ensemble.commands.fuse.fusing.mean_logits": lambda answers, weights: legacy.MeanLogits(
            weights, name="mean", dtype="float32"
        )(answers),
    }
    for name, replacement in replacements.items():
        monkeypatch.setattr(name, replacement)
    return monkeypatch


def probabilities(logits: keras.KerasTensor, temperature: float = 1.0) -> keras.KerasTensor:
    layer = legacy.ClassProbabilities(CLASSES, temperature, name="probabilities", dtype="float32")
    return layer(logits)


def build_earlier(tiny: str) -> MultiBranchModel:
    options: dict[str, Any] = {"classes": CLASSES, "weights": "random", "image_size": 16}
    first = build_model([tiny, f"{tiny}:b"], fusion="grid", **options)
    return fuse_models([first, build_model([tiny], **options)], Mean(np.array([0.25, 0.75])))


def save_earlier(model: keras.Model, path: Path, drop: str = "") -> Path:
    """Saves a model as earlier versions did; `drop` is a setting that they did not know yet."""
    names = {name.partition(">")[2]: name for name in legacy.LEGACY_CLASSES}

    def change(config: dict[str, Any]) -> None:
        for entry in objects(config):
            if entry.get("class_name") in names:
                entry["registered_name"] = names[entry["class_name"]]
                entry["module"] = "ensemble.model.layers"
                entry["config"].pop(drop, None)

    model.save(path)
    return rewrite(path, change)


def test_an_earlier_file_loads_and_is_saved_again_in_standard_layers(tiny, earlier, tmp_path):
    model = build_earlier(tiny).model
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    save_earlier(model, tmp_path / "earlier.keras")
    earlier.undo()

    loaded = MultiBranchModel.load(tmp_path / "earlier.keras")
    loaded.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras", safe_mode=True)

    assert loaded.classes == CLASSES
    assert loaded.temperature == 1
    np.testing.assert_allclose(loaded.model.predict(images, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize(("drop", "temperature"), [("", 2.5), ("temperature", 1.0)])
def test_the_temperature_of_an_earlier_file_is_kept(tiny, earlier, tmp_path, drop, temperature):
    ensemble = build_model([tiny], classes=CLASSES, image_size=16, weights="random")
    last = ensemble.classifier.get_layer("probabilities")
    warm = keras.Model(ensemble.classifier.input, probabilities(last.input, 2.5), name="classifier")
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, warm(ensemble.extractor(image)))
    save_earlier(model, tmp_path / "model.keras", drop)
    earlier.undo()

    assert MultiBranchModel.load(tmp_path / "model.keras").temperature == temperature


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), "hot"])
def test_a_wrong_temperature_of_an_earlier_file_is_refused(tiny, earlier, tmp_path, temperature):
    model = build_model([tiny], classes=CLASSES, image_size=16, weights="random").model
    path = save_earlier(model, tmp_path / "model.keras")
    earlier.undo()

    def change(config: dict[str, Any]) -> None:
        find(config, "ClassProbabilities")["config"]["temperature"] = temperature

    assert_refused(rewrite(path, change))


def test_a_model_without_class_names_is_refused(tiny, tmp_path):
    path = tmp_path / "model.keras"
    build_model([tiny], classes="ab", image_size=16, weights="random").model.save(path)

    assert_refused(path, "it has no ensemble.json, which names its classes")


def put_record(model: Path, content: bytes) -> Path:
    """Writes the model file anew with another `ensemble.json`."""
    with zipfile.ZipFile(model) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["ensemble.json"] = content
    with zipfile.ZipFile(model, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return model


def change_record(model: Path, **values: Any) -> Path:
    with zipfile.ZipFile(model) as archive:
        record = json.loads(archive.read("ensemble.json"))
    return put_record(model, json.dumps({**record, **values}).encode())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"version": 2}, "`version`"),
        ({"classes": []}, "`classes`"),
        ({"classes": "ab"}, "`classes`"),
        ({"classes": ["a", "a"]}, "class names must differ"),
        ({"classes": ["a", 3]}, "`classes.1`"),
        ({"temperature": 0}, "`temperature` must be greater than 0"),
        ({"temperature": -1}, "`temperature` must be greater than 0"),
        ({"temperature": float("nan")}, "`temperature`"),
        ({"temperature": "hot"}, "`temperature`"),
        ({"image_size": 0}, "`image_size`"),
        ({"branches": ["tiny"]}, "`branches`"),
        ({"protocol": "majority"}, "`protocol`"),
        ({"source": "x" * 100_000}, "`source`"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(model, values, reason):
    assert_refused(change_record(model, **values), "its ensemble.json is not valid", reason)


@pytest.mark.parametrize(
    "values",
    [
        {"classes": ["a", "b", "c"]},
        {"image_size": 17},
        {"temperature": 2.0},
        {"branches": {"tiny": [1, 1, 99]}},
    ],
)
def test_a_record_of_another_model_is_refused(model, values):
    assert_refused(change_record(model, **values), "do not fit")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b"[" * 10**5 + b"]" * 10**5, b"null"]
)
def test_a_damaged_record_is_refused(model, content):
    assert_refused(put_record(model, content))


def test_a_record_nested_deeply_is_refused(model):
    nested: dict[str, Any] = {}
    for _ in range(30):
        nested = {"x": nested}

    assert_refused(change_record(model, source=nested), "its ensemble.json is nested")


def test_a_record_of_megabytes_is_not_read(model):
    assert_refused(change_record(model, source={"x": "x" * 2**21}), "its ensemble.json is larger")
