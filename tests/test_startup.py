"""Laws of the start: a mistake costs a line and code 2, before anything heavy is imported."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from configs.schema import ExperimentConfig
from ensemble.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "scipy",
    "sklearn",
    "pandas",
    "matplotlib",
    "cv2",
    "starlette",
    "uvicorn",
}
REPORT = "import time:"  # opens each line that `-X importtime` writes on standard error


class Outcome(NamedTuple):
    """What a command came to; `heavy` are the packages it should not have imported."""

    code: int
    output: str
    errors: str
    heavy: set[str]


def run(*arguments: str, folder: Path = ROOT) -> Outcome:
    """Runs `python -m` with these arguments and looks at all its imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    lines = done.stderr.splitlines()
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in lines
        if line.startswith(REPORT)
    }
    assert "configs" in imported  # or the report is not read as it should be
    errors = "\n".join(line for line in lines if not line.startswith(REPORT))
    return Outcome(done.returncode, done.stdout, errors, imported & HEAVY)


def train(*arguments: str) -> Outcome:
    return run("ensemble.train", *arguments)


def assert_refused(outcome: Outcome, *told: str) -> None:
    """Checks that a mistake is told in these words, and nothing heavy was loaded for it."""
    assert outcome.code == 2
    assert outcome.output == ""
    assert outcome.errors.startswith("error: ")
    assert outcome.errors.count("error:") == 1
    assert "Traceback" not in outcome.errors
    for words in told:
        assert words in outcome.errors
    assert outcome.heavy == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_light(command):
    outcome = run(f"ensemble.{command}", "--help")

    assert outcome.code == 0
    assert outcome.output.startswith(f"usage: python -m ensemble.{command}")
    assert outcome.errors == ""
    assert outcome.heavy == set()


def test_the_list_of_commands_is_light():
    outcome = run("ensemble", "--help")

    assert outcome.code == 0
    assert all(command in outcome.output for command in COMMANDS)
    assert outcome.heavy == set()


def test_settings_are_shown_without_loading_anything():
    outcome = train("--print-config", "--seed", "7")

    assert outcome.code == 0
    assert ExperimentConfig.model_validate(yaml.safe_load(outcome.output)).seed == 7
    assert outcome.errors == ""
    assert outcome.heavy == set()


def test_a_misspelt_command_is_answered_with_its_near_miss():
    assert_refused(run("ensemble", "trian"), "Unknown command 'trian'. Did you mean 'train'?")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--branches vgg61", "Unknown branch 'vgg61'. Did you mean 'vgg16'?"),
        ("--head dens", "Unknown head 'dens'. Did you mean 'dense'?"),
        ("--source foldr", "Unknown source 'foldr'. Did you mean 'folder'?"),
        ("--faces yunt", "Unknown face detector 'yunt'. Did you mean 'yunet'?"),
        ("--data.faces.several all", "cut all faces out with python -m ensemble.prepare"),
        ("--config three_clas", "Did you mean 'three_class'?"),
        ("--epoch 3", "Unknown flag --epoch. Did you mean --epochs?"),
        ("--epochs", "--epochs"),
        ("--epochs 0", "`training.epochs` must be greater than or equal to 1. Received: 0."),
        ("--model.head.dropout 1.5", "`model.head.dropout` must be less than 1. Received: 1.5."),
        ("--model.head.dropuot 0.3", "Did you mean `model.head.dropout`?"),
        ("--model.head.units [1", "--model.head.units"),
        ("--image-size 16", "at least 32 for branch 'vgg16'. Received: 16."),
        ("--weights missing.h5", "missing.h5"),
        ("--protocol mayority", "`data.protocol` must be"),
        ("--protocol distribution --targets label", "Leave --targets out, or use --protocol"),
        ("--plugins no_such_module", "The plugin 'no_such_module' cannot be imported"),
        ("stray", "Unexpected argument 'stray'"),
    ],
)
def test_a_mistake_in_a_flag_is_told(arguments, told):
    assert_refused(train(*arguments.split()), told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: [vgg16", "is not valid YAML"),
        ("traning: {epochs: 3}", "Unknown setting `traning`. Did you mean `training`?"),
        ("training: {epoch: 3}", "Did you mean `training.epochs`?"),
        ("- vgg16", "must hold settings"),
    ],
)
def test_a_mistake_in_a_file_is_told(text, told, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    assert_refused(train("--config", str(path)), told)


def test_all_mistakes_are_told_in_one_go(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {patience: 0}\nsead: 1\n")
    flags = "--branches vgg61 --head dens --batch-size many --source foldr"

    outcome = train("--config", str(path), *flags.split())

    told = ("training.patience", "sead", "vgg61", "'dens'", "training.batch_size", "foldr")
    assert_refused(outcome, *told)
    assert len(outcome.errors.splitlines()) == len(told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "RUN"),
        ("runs/nowhere", "runs/nowhere"),
        ("runs/nowhere --split tset", "--split"),
        ("runs/nowhere --source foldr", "Did you mean 'folder'?"),
        ("runs/nowhere --map happiness=happy", "--map says which labels of other data"),
        ("runs/nowhere --data faces --map happy", "'happy' has no new name"),
        ("runs/nowhere --protocol most", "must be 'majority'"),
        ("runs/nowhere --protocol plurality", "--protocol without --data"),
        ("runs/nowhere --source folder --merge a=b+c", "--source and --merge without --data"),
    ],
)
def test_a_mistake_in_evaluating_is_told(arguments, told):
    assert_refused(run("ensemble.evaluate", *arguments.split()), told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "RUN"),
        ("runs/nowhere", "--format"),
        ("runs/nowhere --format onxn", "invalid choice: 'onxn'"),
        ("runs/nowhere --format saved_model", "runs/nowhere is not a finished run"),
    ],
)
def test_a_mistake_in_exporting_is_told(arguments, told):
    assert_refused(run("ensemble.export", *arguments.split()), told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("ensemble.report", "RUN"),
        ("ensemble.report runs/nowhere", "runs/nowhere is neither a finished run nor a search"),
        ("ensemble.train --reproduce runs/nowhere", "runs/nowhere is not a finished run"),
    ],
)
def test_a_run_that_is_not_there_is_told(arguments, told):
    assert_refused(run(*arguments.split()), told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "action"),
        ("lst", "invalid choice: 'lst'"),
        ("list --all", "--all and --unused-for go with prune"),
        ("prune --unused-for long", "--unused-for"),
    ],
)
def test_a_mistake_in_looking_after_the_cache_is_told(arguments, told):
    assert_refused(run("ensemble.cache", *arguments.split()), told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "--output"),
        ("photos", "--output"),
        ("photos --output faces --faces yunte", "Did you mean 'yunet'?"),
        ("photos --output faces --source foldr", "Did you mean 'folder'?"),
        ("photos --output faces --face-model no.onnx", "There is no file no.onnx"),
        ("photos --output faces --margin 1", "Did you mean --faces.margin?"),
    ],
)
def test_a_mistake_in_preparing_faces_is_told(arguments, told):
    assert_refused(run("ensemble.prepare", *arguments.split()), told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "`search.spaces` is empty"),
        ("{training.learnig_rate: [1]}", "Did you mean `training.learning_rate`?"),
        ("{training.epsilon: []}", "the choice is empty"),
        ("{training.epsilon: {log: [0, 1]}}", "must be above 0. Received: 0"),
    ],
)
def test_a_mistake_in_a_space_is_told(text, told, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"search:\n  spaces: {text or '{}'}\n")

    assert_refused(run("ensemble.search", "--config", str(path)), told)


@pytest.mark.parametrize("command", ["search --config search_head", "evaluate run"])
def test_missing_data_is_told_before_a_backend_is_loaded(command, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "model.keras"):
        (tmp_path / "run" / name).touch()

    outcome = run(*f"ensemble.{command} --data nope".split(), folder=tmp_path)

    assert_refused(outcome, "There is no file or folder 'nope'")


def test_a_worker_without_its_chiefs_address_is_told(monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")

    outcome = run("ensemble.search", "--config", "search_head")

    assert_refused(outcome, "KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("runs/none", "-"), "runs/none is not a finished run"),
        (("none.keras", "-"), "There is no model file none.keras"),
        (("MODEL", "README.mdd"), "Did you mean 'README.md'?"),
        (("MODEL", "-", "--faces", "yunett"), "Did you mean 'yunet'?"),
        (("MODEL", "-", "--explain"), "--explain writes heat maps into --output"),
        (("MODEL", "-", "--min-confidence", "50"), "a probability is 0 to 1, received 50"),
        (("MODEL", "LICENSE", "--output", "LICENSE"), "The folder LICENSE cannot be made"),
        (("MODEL", "-", "--every", "0"), "1 or more. Received: 0"),
        (("MODEL", "-", "--face-threshold", "-1"), "0 or more. Received: -1.0"),
        (("MODEL", "-", "--faces", "none", "--largest"), "--largest has no effect"),
        (("MODEL", "-"), "Nothing came from standard input"),
    ],
)
def test_a_mistake_in_predicting_is_told(words, told, tmp_path):
    model = tmp_path / "some.keras"
    model.touch()

    outcome = run("ensemble.predict", *(str(model) if word == "MODEL" else word for word in words))

    assert_refused(outcome, told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("runs/none",), "runs/none is not a finished run"),
        (("MODEL", "--port", "99999"), "Choose another --port"),
        (("MODEL", "--host", "256.1.1.1"), "The address 256.1.1.1:8000 cannot be used"),
        (("MODEL", "--max-megabytes", "0"), "--max-megabytes is above 0. Received: 0.0"),
    ],
)
def test_a_mistake_in_serving_is_told(words, told, tmp_path):
    model = tmp_path / "some.keras"
    model.touch()

    outcome = run("ensemble.serve", *(str(model) if word == "MODEL" else word for word in words))

    assert_refused(outcome, told)


def test_the_cache_folder_is_that_of_the_flag_or_of_the_environment(monkeypatch):
    def folder(*arguments: str) -> str | None:
        outcome = train("--print-config", *arguments)
        return yaml.safe_load(outcome.output)["features"].get("directory")

    monkeypatch.setenv("ENSEMBLE_CACHE", "elsewhere")
    assert folder() == "elsewhere"
    assert folder("--cache", "here") == "here"
    monkeypatch.delenv("ENSEMBLE_CACHE")
    assert folder() is None


def test_a_plugin_that_fails_is_told_in_a_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("1 / 0\n")

    assert_refused(train("--plugins", str(path)), "ZeroDivisionError", str(path))


def test_a_wrong_backend_is_told(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "abacus")

    outcome = train()

    assert outcome.code == 2
    assert outcome.errors.startswith("error: Keras cannot start with the backend 'abacus'")
    assert "Traceback" not in outcome.errors


def test_the_backend_is_no_matter_of_garbage_collection():
    code = (
        "import gc; from ensemble.cli.command_line import load_backend;"
        "load_backend(devices=False); frozen = gc.get_freeze_count(); load_backend();"
        "print(gc.isenabled(), frozen > 10_000, gc.get_freeze_count() <= frozen)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True"] * 3


@pytest.fixture
def on_path(monkeypatch) -> None:
    """Has processes in other folders find the packages, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize("name", ["branches", "configs", "heads", "yaml", "random", "numpy"])
def test_a_file_in_the_working_folder_hides_no_package(name, tmp_path, on_path):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")

    for command in (["ensemble.train"], ["ensemble", "train"]):
        outcome = run(*command, "--help", folder=tmp_path)
        assert (outcome.code, outcome.errors) == (0, "")


@pytest.mark.parametrize("name", ["branches", "configs", "heads"])
def test_a_file_on_the_python_path_that_hides_a_package_is_named(name, tmp_path, monkeypatch):
    file = tmp_path / f"{name}.py"
    file.touch()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    script = tmp_path / "ensemble"  # as pip writes it
    script.write_text("from ensemble.__main__ import main\nraise SystemExit(main())\n")

    for command in (["-m", "ensemble.train"], [str(script), "train"]):
        done = subprocess.run(
            [sys.executable, *command, "--help"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {file} hides the package {name!r}")
        assert done.stderr.count("\n") == 1


def test_a_plugin_may_be_a_module_in_the_working_folder(tmp_path, on_path):
    (tmp_path / "my_parts.py").write_text("print('imported', __name__)")

    outcome = run("ensemble.train", "--plugins", "my_parts", "--print-config", folder=tmp_path)

    assert outcome.output.startswith("imported my_parts")
    assert "'my_parts' registers no branch, head, source, face detector or metric" in outcome.errors


def command(words: str, **more) -> subprocess.CompletedProcess:
    """Runs words of a shell with PYTHON and its options, without a backend."""
    return subprocess.run(
        ["bash", "-c", words],
        capture_output=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, **more},
    )


@pytest.mark.parametrize("words", ["-m ensemble.train --help", "-m ensemble --help"])
@pytest.mark.parametrize("options", ["-O", "-OO"])
def test_help_needs_no_docstrings(words, options):
    done = command(f"$PYTHON {options} {words}")

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words",
    ["ensemble.train --help", "ensemble.train --print-config", "ensemble --help",
     "ensemble.cache list --cache nowhere"],
)  # fmt: skip
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_disk_behind_the_output_is_an_error(words):
    done = command(f"$PYTHON -m {words} >/dev/full")

    assert done.returncode == 2
    assert done.stderr.startswith(b"error: No space left on device")
    assert done.stderr.count(b"\n") == 1
    assert command(f"$PYTHON -m {words} >/dev/full 2>/dev/full").returncode == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed):
    for words, code in (("--print-config", 0), ("--help", 0), ("--epochs 0", 2)):
        done = command(f"$PYTHON -m ensemble.train {words} {closed}")

        assert done.returncode == code
        assert b"Traceback" not in done.stdout + done.stderr
        assert code == 0 or not done.stdout  # an error is no output


def test_a_reader_that_stops_early_is_no_error():
    done = command("$PYTHON -m ensemble.train --help | head -1; exit ${PIPESTATUS[0]}")

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_letters_that_an_encoding_lacks_are_written_as_escapes(encoding):
    words = "$PYTHON -m ensemble.train --print-config --classes 喜び,b"

    done = command(words, PYTHONIOENCODING=encoding)

    assert (done.returncode, done.stderr) == (0, b"")
    shown = "喜び" if encoding == "utf-8" else r"\u559c\u3073"
    assert f"- {shown}" in done.stdout.decode(encoding)


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_a_locale_without_letters_ends_no_command(locale):
    words = "$PYTHON -m ensemble.train --print-config --classes 喜び,b"

    done = command(words, LC_ALL=locale, LANG=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 300, "at most 200 bytes. Received: 300"),
        ("喜" * 100, "at most 200 bytes. Received: 300"),
        ("../x", "Received: '../x'"),
        ("a/b", "Received: 'a/b'"),
        ("..", "Received: '..'"),
        ("a b", "Received: 'a b'"),
    ],
)
@pytest.mark.parametrize("words", [("ensemble.train",), ("ensemble.fuse", "runs/nowhere")])
def test_a_name_that_is_no_folder_is_refused(words, name, message):
    assert_refused(run(*words, "--name", name), message)


def test_without_a_home_folder_the_cache_must_be_named(tmp_path):
    alone = "unshare --user --map-user=12345 --map-group=12345 env -u HOME -u XDG_CACHE_HOME"
    alone += " -u ENSEMBLE_CACHE"
    if command(f"{alone} true").returncode:
        pytest.skip("needs user namespaces")

    done = command(f"{alone} $PYTHON -m ensemble.cache list")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: There is no home folder to keep features in. Set HOME")
    assert command(f"{alone} $PYTHON -m ensemble.cache list --cache {tmp_path}").returncode == 0
    done = command(f"{alone} $PYTHON -m ensemble.train --data '~/faces'")
    assert b"The home folder of '~/faces' is not known" in done.stderr


@pytest.mark.parametrize("command", ["train", "search", "extract"])
def test_help_offers_the_presets_that_the_command_accepts(command):
    words = " ".join(run(f"ensemble.{command}", "--help").output.split())
    offered = words.partition("settings to start from: ")[2].partition(" or a .yaml")[0].split(", ")

    assert {"three_class", "eight_class"} <= set(offered)
    assert ("search_head" in offered) == (command == "search")
    for name in offered:
        assert run(f"ensemble.{command}", "--config", name, "--print-config").code == 0


@pytest.mark.parametrize(
    "words",
    [
        "ensemble.train --data nowhere",
        "ensemble.train --data nowhere.zip",
        "ensemble.extract --data nowhere.csv",
        "ensemble.train --data ensemble --labels nowhere.csv",
        "ensemble.train --data.augment.mixup 0.2",
        "ensemble.train --training.warmup_epochs 2",
        "ensemble.search --config search_head --search.factor 4",
        "ensemble.prepare photos --output faces --faces none --faces.margin 0.3",
        "ensemble.predict MODEL - --faces none --face-threshold 3",
    ],
)
def test_what_cannot_work_is_told_before_a_backend_is_loaded(words, tmp_path):
    model = tmp_path / "some.keras"
    model.touch()

    assert_refused(run(*words.replace("MODEL", str(model)).split()))
