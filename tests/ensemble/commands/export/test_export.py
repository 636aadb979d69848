"""Exports: a small runtime computes what Keras does, and nothing half made is left behind."""

import errno
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from branches.checksums import file_checksum
from configs.errors import ConfigError, DataError, RunError
from configs.schema import FaceConfig
from ensemble.commands.export import __main__ as export
from ensemble.commands.export import exporting
from ensemble.commands.export.exporting import TOLERANCE, compare, export_model, fixture_images
from ensemble.commands.predict.__main__ import main as predict
from ensemble.commands.predict.face_search import FaceSearch
from ensemble.commands.predict.predictor import Predictor
from ensemble.model import conversion
from ensemble.model.composition import build_model
from ensemble.model.conversion import convert
from ensemble.model.fusion import refresh_scales
from ensemble.model.precision import in_precision
from ensemble.model.runtimes import RUNTIMES, load_exported
from ensemble.runs.run import Run

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports need the backend tensorflow"
)
FORMATS = list(RUNTIMES)
CLASSES = ("sad", "happy", "glücklich")


def missing(format):
    runtime = RUNTIMES[format]
    packages = {runtime.package, *runtime.converters}
    return [name for name in packages if importlib.util.find_spec(name.replace("-", "_")) is None]


@pytest.fixture(params=FORMATS)
def format(request):
    if packages := missing(request.param):
        pytest.skip(f"needs {', '.join(packages)}")
    return request.param


@pytest.fixture
def ensemble(tiny):
    """Two branches on grids of 3 x 3, and nothing after them that is an identity."""
    keras.utils.set_random_seed(3)
    built = build_model(
        [tiny, f"{tiny}:b"],
        classes=CLASSES,
        image_size=16,
        weights="random",
        fusion="grid",
        standardize=True,
        head_options={"units": 16},
    )
    rng = np.random.default_rng(0)
    weights = [
        np.asarray(w + rng.normal(0, 0.1, w.shape), w.dtype) for w in built.model.get_weights()
    ]
    built.model.set_weights([np.abs(w) if w.ndim == 1 else w for w in weights])  # variances
    refresh_scales(built.model)
    return built.with_temperature(1.7)


@pytest.fixture
def run(make_config, ensemble):
    """A finished run of that ensemble, with all that an export reads."""
    run = Run.create(make_config(), "tiny")
    run.save("model.keras", ensemble.save)
    return run


@pytest.fixture
def exported(ensemble, tmp_path):
    """An export in some format that can be had here."""
    format = next((format for format in FORMATS if not missing(format)), None)
    if format is None:
        pytest.skip("needs onnxruntime, openvino or ai-edge-litert")
    return export_model(ensemble, format, tmp_path / "exported").folder


def some_images(count, size=16):
    return np.random.default_rng(count).uniform(0, 255, (count, size, size, 3)).astype("float32")


def test_a_runtime_computes_what_keras_does_for_batches_of_any_size(format, ensemble, tmp_path):
    export_model(ensemble, format, tmp_path / "exported")
    model = load_exported(tmp_path / "exported")

    for count in (1, 5, 2, 33):
        images = some_images(count)
        expected = ensemble.model.predict(images, verbose=0)
        assert np.ptp(expected) > 0.01  # or all answers were the same
        found = model(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_answers_to_earlier_images_do_not_change(exported):
    model = load_exported(exported)
    first = model(some_images(2))
    kept = first.copy()

    model(255 - some_images(2))

    np.testing.assert_array_equal(first, kept)


def test_whole_grey_levels_may_come_as_bytes(exported):
    model = load_exported(exported)
    images = some_images(3).astype("uint8")

    np.testing.assert_array_equal(model(images), model(images.astype("float32")))


def test_nothing_comes_of_no_images(exported):
    assert load_exported(exported)(some_images(0)).shape == (0, len(CLASSES))


def test_images_of_another_shape_are_refused(exported):
    with pytest.raises(DataError, match=r"\('n', 16, 16, 3\). Received: \(1, 24, 24, 3\)"):
        load_exported(exported)(some_images(1, size=24))


def test_the_card_says_what_the_model_is(format, ensemble, tmp_path):
    source = {"run": "mine", "model_sha256": "0"}

    made = export_model(ensemble, format, tmp_path / "exported", source=source)

    card = json.loads((made.folder / "model.json").read_text("utf-8"))
    model = load_exported(made.folder)
    assert tuple(card["classes"]) == model.classes == CLASSES
    assert card["image_size"] == model.image_size == 16
    assert card["input"]["range"] == [0, 255]
    assert card["input"]["shape"] == [None, 16, 16, 3]
    assert card["output"]["temperature"] == 1.7
    assert card["source"] == source
    assert card["versions"]["keras"] == keras.__version__
    on_disk = [path for path in made.folder.rglob("*") if path.is_file()]
    assert {path.relative_to(made.folder).as_posix() for path in on_disk} == {
        "model.json",
        *card["files"],
    }
    assert made.size == sum(p.stat().st_size for p in on_disk if p.name != "model.json")


def test_tensors_have_the_names_on_the_card(exported_tensors):
    assert exported_tensors == ("image", "probabilities")


@pytest.fixture
def exported_tensors(format, ensemble, tmp_path):
    """The names of input and output, as the runtime itself tells them."""
    folder = export_model(ensemble, format, tmp_path / "exported").folder
    path = folder / RUNTIMES[format].file
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return session.get_inputs()[0].name, session.get_outputs()[0].name
    if format == "litert":
        from ai_edge_litert.interpreter import Interpreter

        (signature,) = Interpreter(str(path)).get_signature_list().values()
        return signature["inputs"][0], signature["outputs"][0]
    from ensemble.model.runtimes import import_openvino

    model = import_openvino().Core().read_model(path if format == "openvino" else folder)
    names = model.inputs[0].names, model.outputs[0].names
    return next(iter(names[0])), next(iter(names[1] & {"probabilities"}), names[1])


def test_a_saved_model_runs_in_tensorflow_too(ensemble, tmp_path):
    import tensorflow as tf

    made = export_model(ensemble, "saved_model", tmp_path / "exported")

    images = some_images(3)
    serve = tf.saved_model.load(str(made.folder)).signatures["serving_default"]
    found = serve(image=tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(found, ensemble.model.predict(images, verbose=0), atol=1e-6)


def test_a_model_in_mixed_precision_is_exported_in_float32(format, ensemble, tmp_path):
    mixed = in_precision(ensemble.model, "float16")
    halves = replace(
        ensemble,
        extractor=mixed.get_layer("extractor"),
        classifier=mixed.get_layer("classifier"),
        model=mixed,
    )

    made = export_model(halves, format, tmp_path / "exported", verify=True)

    images = some_images(4)
    expected = ensemble.model.predict(images, verbose=0)
    np.testing.assert_allclose(load_exported(made.folder)(images), expected, atol=1e-6)


def test_a_runtime_needs_neither_keras_nor_tensorflow(format, ensemble, tmp_path):
    folder = export_model(ensemble, format, tmp_path / "exported").folder
    images = some_images(3)
    np.save(tmp_path / "images.npy", images)
    code = f"""
import sys
import numpy as np
from ensemble.model.runtimes import load_exported
probabilities = load_exported({str(folder)!r})(np.load({str(tmp_path / "images.npy")!r}))
np.save({str(tmp_path / "found.npy")!r}, probabilities)
sys.exit(" ".join({{"keras", "tensorflow", "jax", "torch"}} & set(sys.modules)) or 0)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    expected = ensemble.model.predict(images, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-6)


def test_photos_are_predicted_from_an_export_without_keras(exported, ensemble, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(some_images(1)[0].astype("uint8")).save(photo)
    words = [str(exported), str(photo), "--faces", "none", "--format", "json"]
    code = f"""
import sys
from ensemble.commands.predict.__main__ import main
code = main({words!r})
sys.exit(" ".join({{"keras", "tensorflow", "jax", "torch"}} & set(sys.modules)) or code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    (answer,) = Predictor(ensemble, search=FaceSearch()).predict(photo)
    (found,) = json.loads(done.stdout)["predictions"]
    assert found["label"] == answer.label
    assert found["probabilities"] == pytest.approx(answer.probabilities, abs=1e-6)


def test_an_export_searches_faces_as_its_run_was_trained(run, exported, ensemble, tmp_path):
    faces = FaceConfig(detector="haar", margin=0.3, no_face="whole")
    folder = export_model(ensemble, "onnx", tmp_path / "faces", faces=faces).folder

    search = Predictor(folder).search

    assert (search.settings.margin, search.settings.no_face) == (0.3, "whole")
    assert search.detector is not None
    assert not search.accepts_crops


def test_an_export_cannot_be_explained(exported, tmp_path, capsys):
    words = [str(exported), "photo.png", "--explain", "--output", str(tmp_path / "out")]

    assert predict(words) == 2
    assert "--explain needs the run" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="cannot be explained"):
        Predictor(exported, search=FaceSearch()).explain(some_images(1)[0])


def test_the_command_exports_a_run_and_tells_the_difference(format, run, ensemble, capsys):
    code = export.main([str(run.folder), "--format", format, "--verify"])

    shown = capsys.readouterr().out
    folder = run.folder / "exported" / format
    assert code == 0
    assert float(shown.splitlines()[0].rpartition(" ")[2]) <= 1e-6
    assert f"{folder}/ holds the model" in shown
    assert load_exported(folder).card["source"]["run"] == run.name
    assert {path.name for path in folder.parent.iterdir()} == {format}


def test_images_to_verify_on_are_noise_and_faces_and_always_the_same():
    images = fixture_images(24)

    assert images.shape == (32, 24, 24, 3)
    assert images.min() >= 0
    assert images.max() <= 255
    assert len({image.tobytes() for image in images}) == 32
    np.testing.assert_array_equal(images, fixture_images(24))


def shifted(exported, shift):
    """An exported model whose answers are moved by `shift`."""
    return type(exported)(
        exported.classes,
        exported.image_size,
        exported.card,
        lambda images: exported(images) + np.asarray(shift, "float32"),
    )


def test_a_difference_above_the_tolerance_is_refused(exported, ensemble):
    model = load_exported(exported)

    assert compare(ensemble.model, model) <= 1e-6
    near = compare(ensemble.model, shifted(model, [0.9 * TOLERANCE, 0, 0]))
    assert near == pytest.approx(0.9 * TOLERANCE, rel=0.02)
    with pytest.raises(RunError, match=r"differs from Keras by 1\.1e-04 .* 1e-04 is allowed"):
        compare(ensemble.model, shifted(model, [1.1 * TOLERANCE, 0, 0]))
    with pytest.raises(RunError, match="differs from Keras by nan"):
        compare(ensemble.model, shifted(model, np.nan))


def test_another_most_probable_class_is_refused_however_near(exported, ensemble):
    layer = ensemble.classifier.get_layer("logits")
    kernel, bias = layer.get_weights()
    layer.set_weights([np.zeros_like(kernel), np.array([2e-5, 1e-5, 0], bias.dtype)])
    folder = export_model(ensemble, load_exported(exported).card["format"], exported).folder
    model = load_exported(folder)

    assert compare(ensemble.model, model) <= 1e-6
    with pytest.raises(RunError, match="another class than Keras for 64 of 64 images"):
        compare(ensemble.model, shifted(model, [0, 5e-5, 0]))


def test_an_export_that_disagrees_is_not_kept(run, exported, monkeypatch, capsys):
    format = load_exported(exported).card["format"]
    model = load_exported(exported)
    monkeypatch.setattr(exporting, "load_exported", lambda _: shifted(model, 0.5))

    assert export.main([str(run.folder), "--format", format, "--verify"]) == 2

    assert "differs from Keras by 5.0e-01" in capsys.readouterr().err
    assert list((run.folder / "exported").iterdir()) == []


def test_an_earlier_export_is_replaced(exported, ensemble):
    format = load_exported(exported).card["format"]
    (exported / "stale.bin").write_text("of the earlier one")
    ensemble.model.set_weights([0.5 * weights for weights in ensemble.model.get_weights()])

    export_model(ensemble, format, exported)

    images = some_images(4)
    expected = ensemble.model.predict(images, verbose=0)
    np.testing.assert_allclose(load_exported(exported)(images), expected, atol=1e-6)
    assert not (exported / "stale.bin").exists()


def test_a_folder_with_something_else_is_left_alone(ensemble, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(RunError, match=r"holds something other than an export.*--output"):
        export_model(ensemble, "saved_model", tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_full_disk_is_told_and_leaves_the_earlier_export(exported, ensemble, monkeypatch):
    format = load_exported(exported).card["format"]
    before = load_exported(exported)(some_images(2))

    def fail(folder: Path) -> None:
        (folder / "model.bin").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "convert", lambda *_: fail)

    with pytest.raises(RunError, match=r"\(No space left on device\)\. Free some space"):
        export_model(ensemble, format, exported)

    np.testing.assert_array_equal(load_exported(exported)(some_images(2)), before)
    assert not list(exported.parent.glob(".part-*"))


def test_a_full_disk_is_found_in_an_error_of_tensorflow(ensemble, tmp_path, monkeypatch):
    from tensorflow import errors

    def fail(folder: Path) -> None:
        raise errors.ResourceExhaustedError(None, None, f"{{{{node}}}} {folder}; {full} [Op:Save]")

    full = os.strerror(errno.ENOSPC)
    monkeypatch.setattr(exporting, "convert", lambda *_: fail)

    with pytest.raises(RunError, match=rf"x cannot be written \({full}\)\. Free"):
        export_model(ensemble, "saved_model", tmp_path / "x")


def test_a_disk_that_fills_up_in_a_converter_is_told(format, run, monkeypatch, capsys):
    """Files may not grow beyond 2 KB while the model is written, as on a disk without room."""
    resource = pytest.importorskip("resource")

    def convert_for_a_full_disk(model, format):
        write = convert(model, format)

        def write_a_little(folder):
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
            try:
                write(folder)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        return write_a_little

    monkeypatch.setattr(exporting, "convert", convert_for_a_full_disk)

    assert export.main([str(run.folder), "--format", format]) == 2

    told = capsys.readouterr().err
    assert f"{format} cannot be written" in told
    assert "Traceback" not in told
    assert list((run.folder / "exported").iterdir()) == []


def test_a_model_that_cannot_be_converted_is_told(ensemble, monkeypatch, tmp_path):
    def fail(model):
        raise ValueError("no translator for Ridge2D\nand a long story")

    monkeypatch.setitem(conversion._CONVERTERS, "saved_model", fail)

    with pytest.raises(ConfigError, match=r"converted to saved_model \(no translator for Ridge2D"):
        export_model(ensemble, "saved_model", tmp_path / "exported")


@pytest.mark.parametrize(
    ("format", "verify", "told"),
    [
        ("onnx", False, "tf2onnx and onnx are not installed"),
        ("onnx", True, "tf2onnx and onnx and onnxruntime are not installed"),
        ("openvino", True, "openvino is not installed"),
        ("saved_model", True, "openvino is not installed"),
        ("litert", True, "ai-edge-litert is not installed"),
    ],
)
def test_missing_packages_are_told(format, verify, told, run, monkeypatch, capsys):
    for module in ("tf2onnx", "onnx", "onnxruntime", "openvino", "ai_edge_litert"):
        monkeypatch.setitem(sys.modules, module, None)

    code = export.main([str(run.folder), "--format", format, *(["--verify"] if verify else [])])

    assert code == 2
    assert capsys.readouterr().err == (
        f"error: {told}. Use pip install 'multibranch-ensemble[export]'.\n"
    )


def test_a_missing_runtime_is_told(exported, monkeypatch):
    package = RUNTIMES[load_exported(exported).card["format"]].package
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)

    with pytest.raises(ConfigError, match=rf"{package} is not installed.*\[export\]"):
        load_exported(exported)


@pytest.mark.parametrize(
    ("backend", "format"), [("jax", "onnx"), ("torch", "litert"), ("torch", "saved_model")]
)
def test_other_backends_are_told_the_way_out(backend, format, ensemble, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)

    with pytest.raises(ConfigError, match=rf"Received: {backend}. Set KERAS_BACKEND to tensorflow"):
        convert(ensemble.model, format)


def test_damage_is_told_in_a_sentence(exported, tmp_path):
    card = exported / "model.json"
    sound = card.read_text("utf-8")
    values = json.loads(sound)
    model = exported / RUNTIMES[values["format"]].file

    for change, told in [
        ({"version": 2}, "not a card of version 1"),
        ({"format": "onxn"}, "Did you mean 'onnx'"),
        ({"format": []}, "Unknown format"),
        ({"classes": "abc"}, "no valid `classes`"),
        ({"image_size": [16]}, "no valid `image_size`"),
        ({"faces": "yunet"}, "no valid `faces`"),
        ({"source": "mine"}, "no valid `source`"),
        ({"files": {}}, "no valid `files`"),
    ]:
        card.write_text(json.dumps({**values, **change}))
        with pytest.raises(RunError, match=told):
            load_exported(exported)
    card.write_text(sound[:40])
    with pytest.raises(RunError, match="is damaged"):
        load_exported(exported)
    card.write_text(sound)
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(RunError, match="damaged or changed"):
        load_exported(exported)
    model.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        load_exported(exported)
    with pytest.raises(RunError, match="holds no exported model"):
        load_exported(tmp_path / "nowhere")


def test_a_file_that_a_runtime_cannot_read_is_told(exported):
    card = json.loads((exported / "model.json").read_text("utf-8"))
    model = exported / RUNTIMES[card["format"]].file
    model.write_bytes(b"no model at all")
    card["files"][model.name] = file_checksum(model)
    (exported / "model.json").write_text(json.dumps(card))

    with pytest.raises(RunError, match="cannot be run by"):
        load_exported(exported)


@pytest.fixture(scope="module")
def real():
    return build_model(["vgg16", "densenet121"], classes=CLASSES, image_size=48, weights="random")


@pytest.mark.slow
def test_two_real_branches_are_exported(format, real, tmp_path):
    made = export_model(real, format, tmp_path / "exported", verify=True)

    assert made.difference is not None
    assert made.difference <= 1e-5
