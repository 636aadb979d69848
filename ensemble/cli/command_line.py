"""What all commands share: settings from YAML and flags, one-line errors, a quiet start."""

import errno
import gc
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from configs.errors import ConfigError, UserError
from configs.fields import describe_errors, put_leaf
from configs.files import config_names, read_config, write_config
from configs.schema import ExperimentConfig
from ensemble.cli.checks import check_settings
from ensemble.cli.flags import SettingsParser
from ensemble.runs.reproduction import read_trace
from ensemble.runs.run import Run

_MACHINE_SETTINGS = {"features.directory", "training.devices"}
_FOLDER_SETTINGS = {"name", "output"}
_CLUSTERS = {"tensorflow": "TF_CONFIG", "jax": "KERAS_DISTRIBUTION_JOB_ADDRESSES"}
_MACHINE_ERRORS = {  # and no bugs of this program
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG,
    errno.ENFILE, errno.ENOSPC, errno.EPERM, errno.EROFS,
}  # fmt: skip

Section = TypeVar("Section", bound=BaseModel)


class Command(NamedTuple):
    """An experiment's settings, and the folder of a run to resume or to reproduce."""

    config: ExperimentConfig
    resume: Path | None
    reproduce: Path | None


def read_experiment(
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    schema: type[ExperimentConfig] = ExperimentConfig,
    of_runs: bool = False,
) -> Command:
    """Reads an experiment's settings: defaults, then `--config`, then flags.

    Args:
        argv: Words of the command line; None: those of the process.
        prog: The command, for `--help`.
        description: What it does, for `--help`.
        schema: Schema of the settings.
        of_runs: Whether there are flags `--resume` and `--reproduce`, which take a run's settings.

    Raises:
        ConfigError: With all errors that can be found without the data.
        RunError: If there is no such run.
        SystemExit: After `--help` and `--print-config`.
    """
    parser = SettingsParser(schema, prog=prog, description=description)
    parser.add_argument(
        "--config",
        metavar="NAME",
        help=f"settings to start from: {', '.join(_presets(schema))} or a .yaml file",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved settings and stop"
    )
    if of_runs:
        parser.add_argument(
            "--resume",
            metavar="RUN",
            type=Path,
            help="folder of an interrupted run, to resume it with its settings",
        )
        parser.add_argument(
            "--reproduce",
            metavar="RUN",
            type=Path,
            help="folder of a finished run, to train with its settings again and report whether "
            "the results agree",
        )
    args, settings = parser.parse_settings(argv)
    resumed, reproduced = getattr(args, "resume", None), getattr(args, "reproduce", None)
    values = _put_all(_read_base(args.config, resumed, reproduced, set(settings)), settings)
    cache = os.environ.get("ENSEMBLE_CACHE")
    if cache and isinstance(values.setdefault("features", {}), dict):
        values["features"].setdefault("directory", cache)
    config = check_settings(values, schema, effects=not (resumed or reproduced))
    if args.print_config:
        print(write_config(config.model_dump(mode="json", exclude_none=True)), end="")
        raise SystemExit(0)
    return Command(config, resumed, reproduced)


def _presets(schema: type[ExperimentConfig]) -> list[str]:
    """Returns the names of the settings in the package that a schema accepts."""
    known = set(schema.model_fields)
    return [name for name in config_names() if known.issuperset(read_config(name))]


def _read_base(
    config: str | None, resumed: Path | None, reproduced: Path | None, flags: set[str]
) -> dict[str, Any]:
    """Returns the settings that flags are put upon."""
    if resumed is not None and (config or reproduced or flags - _MACHINE_SETTINGS):
        raise ConfigError(
            "--resume continues with the settings of the run; no other flags than --cache and "
            f"--devices go with it. To train with others: --config {resumed / 'config.yaml'}."
        )
    if reproduced is not None and (config or flags - _MACHINE_SETTINGS - _FOLDER_SETTINGS):
        raise ConfigError(
            "--reproduce trains with the settings of the run; no other flags than --cache, "
            "--devices, --name and --output go with it. To train with others: "
            f"--config {reproduced / 'config.yaml'}."
        )
    if resumed is not None:
        return read_config(str(Run.unfinished(resumed).folder / "config.yaml"))
    if reproduced is not None:
        values = read_config(str(read_trace(reproduced).folder / "config.yaml"))
        return {name: value for name, value in values.items() if name != "name"}
    return read_config(config) if config else {}


def read_settings(
    parser: SettingsParser, schema: type[Section], argv: Sequence[str] | None
) -> tuple[Any, Section]:
    """Returns the other arguments, and settings read from flags only.

    Raises:
        ConfigError: With all errors at once.
    """
    args, settings = parser.parse_settings(argv)
    return args, read_section(schema, _put_all({}, settings))


def read_section(schema: type[Section], values: dict[str, Any]) -> Section:
    """Reads one section of the settings.

    Raises:
        ConfigError: With all errors at once.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(describe_errors(error, schema))) from error


def run_command(main: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit code; a user error is printed in one line, with code 2.

    Closed standard streams are replaced by the null device, and letters that their encoding
    lacks are escaped.

    Args:
        main: Returns an exit code; None: 0.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s", handlers=[_Screen()], level=logging.WARNING)
    logging.getLogger("ensemble").setLevel(logging.INFO)
    try:
        try:
            return main() or 0
        finally:
            sys.stdout.flush()
    except UserError as error:
        return _fail(f"error: {error}", 2)
    except KeyboardInterrupt:
        return _fail("\ninterrupted", 130)
    except BrokenPipeError:  # the reader of a table, such as `head`, has seen enough
        _discard_output()
        return 0
    except OSError as error:
        if error.errno not in _MACHINE_ERRORS:
            raise
        _discard_output()
        place = error.filename or "what the command prints or writes"
        return _fail(f"error: {error.strerror}: {place}.", 2)


def _fail(text: str, code: int) -> int:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
    return code


def _open_closed_streams() -> None:
    """Opens the null device in place of closed standard streams.

    Otherwise the next file opened takes the stream's number, and libraries write messages to it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _discard_output() -> None:
    """Sends what standard output still holds to the null device, so that the exit succeeds."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Screen(logging.Handler):
    """Writes messages on standard error, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a training does not end because nobody can read its messages
            tqdm.write(self.format(record), file=sys.stderr)


def load_backend(*, devices: bool = True, joining: bool = False) -> None:
    """Imports Keras and its backend without the backend's start-up messages.

    GPU memory is taken as it is needed, so that several processes can share a GPU.

    Args:
        devices: Whether to start the devices too; a process that forks must not.
        joining: Whether to wait for other processes, if the environment names them.

    Raises:
        ConfigError: If the backend of KERAS_BACKEND or the other processes are not available.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if os.path.expanduser("~") == "~":  # noqa: PTH111
        # no home folder: Keras would make a folder of this name
        os.environ.setdefault("KERAS_HOME", f"{tempfile.gettempdir()}/.keras")
    for name in ("tensorflow", "absl", "jax"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with _quiet(), _garbage_collection_paused():
            import keras

            from branches.arithmetic import set_arithmetic

            set_arithmetic()
            if joining and os.environ.get(_CLUSTERS.get(keras.config.backend(), "")):
                from ensemble.training.cluster import connect

                if not connect().writes:  # only the first process reports its progress
                    logging.getLogger("ensemble").setLevel(logging.WARNING)
            if devices:
                keras.ops.zeros(1)  # devices log when first used
    except (ImportError, ValueError) as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise ConfigError(
            f"Keras cannot start with the backend {backend!r} ({error}). Set KERAS_BACKEND to "
            "tensorflow, jax or torch, and install that package."
        ) from error


def _put_all(values: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sets all values at their dotted paths and returns the nested settings."""
    for path in sorted(settings, key=lambda path: path.count(".")):  # a part before its options
        put_leaf(values, path.split("."), settings[path])
    return values


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Excludes what is imported from garbage collection, which would scan it again and again."""
    if "keras" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """Discards standard error, to which C++ libraries write past Python's stream."""
    sys.stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(null)
        os.close(kept)
