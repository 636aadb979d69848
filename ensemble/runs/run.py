"""A run: a folder with the inputs and results of a training."""

import csv
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from configs.errors import RunError
from configs.files import read_config, write_config
from configs.schema import MAX_NAME_BYTES, ExperimentConfig
from ensemble.model.runtimes import is_export
from ensemble.system.files import atomic_path
from ensemble.system.text import csv_text

if TYPE_CHECKING:
    from ensemble.model.composition import MultiBranchModel

_TITLE_BYTES = MAX_NAME_BYTES - 20  # leaves room for the time and a number


class Run:
    """A run's folder. Files in it are written whole or not at all.

    Args:
        folder: An existing folder.
        writes: Whether files are written; only one of several processes that train together
            writes.
    """

    def __init__(self, folder: str | Path, *, writes: bool = True) -> None:
        self.folder = Path(folder)
        self.writes = writes

    @classmethod
    def create(cls, config: ExperimentConfig, title: str, *, writes: bool = True) -> "Run":
        """Makes a new folder below `config.output` and writes the settings into it.

        Args:
            config: Settings; their name, or `title` and the time, names the folder.
            title: Such as "demo-vgg16+densenet121".
            writes: As above; if not, no folder is made.

        Raises:
            RunError: If the name is taken or the folder cannot be written.
        """
        title = title.encode()[:_TITLE_BYTES].decode(errors="ignore")
        folder = config.output / (config.name or f"{title}-{datetime.now():%Y%m%d-%H%M%S}")
        if not writes:
            return cls(folder, writes=False)
        cls.check_name(config)
        run = cls(_make_folder(folder, unique=config.name is None))
        run.write_settings(config)
        return run

    @staticmethod
    def check_name(config: ExperimentConfig) -> None:
        """Raises a RunError if there is a folder of the name given in the settings."""
        folder = config.output / config.name if config.name else None
        if folder and folder.exists():
            raise RunError(
                f"{folder} is there already. Choose another --name or remove that folder."
            )

    @classmethod
    def open(cls, folder: str | Path, *names: str) -> "Run":
        """Opens a finished run.

        Args:
            folder: Its folder.
            names: Files that it must have; none: the settings and the model.

        Raises:
            RunError: If it lacks one of them.
        """
        run = cls(folder)
        needed = names or ("config.yaml", "model.keras")
        missing = [name for name in needed if not (run.folder / name).is_file()]
        if missing:
            raise RunError(
                f"{folder} is not a finished run: it has no {' and no '.join(missing)}. "
                "Name a folder that ensemble.train has written, such as runs/NAME."
            )
        return run

    @classmethod
    def unfinished(cls, folder: str | Path) -> "Run":
        """Opens an interrupted run.

        Raises:
            RunError: If the folder holds no run, or a finished one.
        """
        run = cls(folder)
        if not (run.folder / "config.yaml").is_file():
            raise RunError(
                f"{folder} is not a run: it has no config.yaml. "
                "Name a folder that ensemble.train has begun, such as runs/NAME."
            )
        if (run.folder / "report.md").exists() and not (run.folder / "checkpoint.npz").exists():
            raise RunError(
                f"{folder} has finished already. "
                f"Train again with --config {run.folder / 'config.yaml'}."
            )
        return run

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def config(self) -> ExperimentConfig:
        """The settings of the run; a RunError if they are damaged."""
        path = self.folder / "config.yaml"
        try:
            return ExperimentConfig.model_validate(read_config(str(path)))
        except ValidationError as error:
            raise RunError(f"{path} no longer holds valid settings: {error}.") from error

    def load_model(self) -> "MultiBranchModel":
        """Loads the trained ensemble; see `MultiBranchModel.load`."""
        from ensemble.model.composition import MultiBranchModel

        return MultiBranchModel.load(self.folder / "model.keras")

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a record; a RunError if it is missing or damaged."""
        path = self.folder / name
        try:
            record = json.loads(path.read_text("utf-8"))
            if not isinstance(record, dict):
                raise ValueError("it holds no record")
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}).") from error
        return record

    def read_table(self, name: str) -> list[dict[str, str]]:
        """Reads a table's rows, column to text; a RunError if it is missing or damaged."""
        path = self.folder / name
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                rows = list(reader)
        except (OSError, ValueError, csv.Error) as error:
            raise RunError(f"{path} cannot be read ({error}).") from error
        if any(None in row or None in row.values() for row in rows):
            raise RunError(f"{path} cannot be read (its rows are not of one length).")
        return rows

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes a file of the run and returns its path; see `save`."""
        data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        return self.save(name, lambda path: path.write_bytes(data))

    def write_json(self, name: str, record: Mapping[str, Any]) -> Path:
        """Writes a record as JSON; see `write`."""
        return self.write(name, json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    def write_settings(self, config: ExperimentConfig) -> Path:
        """Writes the settings into the folder, without what belongs to it or to this machine."""
        settings = config.model_dump(mode="json", exclude_none=True, exclude={"name"})
        settings["features"].pop("directory", None)
        return self.write("config.yaml", write_config(absolute_paths(settings)))

    def write_table(
        self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> Path:
        """Writes a table as CSV; see `write`."""
        return self.write(name, csv_text(header, rows))

    def save(self, name: str, write: Callable[[Path], object]) -> Path:
        """Writes a file of the run through a callback and returns its path.

        Args:
            name: Name of the file, relative to the run's folder.
            write: Writes the file to a temporary path with the same ending.

        Raises:
            RunError: If it cannot be written, a full disk included.
        """
        path = self.folder / name
        if not self.writes:
            return path
        try:
            with atomic_path(path) as part:
                write(part)
        except OSError as error:
            raise RunError(
                f"{path} cannot be written ({error.strerror or error}). "
                "Free some space or choose another --output."
            ) from error
        return path

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Writes the package's log messages to `log.txt` during a `with` block."""
        if not self.writes:
            yield
            return
        handler = logging.FileHandler(self.folder / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("ensemble")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()


def absolute_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the plain settings of an experiment with absolute paths of data, weights, plugins."""
    data, model = dict(settings["data"]), dict(settings["model"])
    data["root"] = [str(Path(root).absolute()) for root in data["root"]]
    data["faces"] = dict(data["faces"])
    for section, name in ((data, "labels"), (data["faces"], "model")):
        if section.get(name):
            section[name] = _absolute(section[name])
    weights = model["weights"]
    model["weights"] = (
        {label: _absolute(source) for label, source in weights.items()}
        if isinstance(weights, dict)
        else _absolute(weights)
    )
    plugins = [_absolute(plugin) for plugin in settings["plugins"]]
    return {**settings, "data": data, "model": model, "plugins": plugins}


def _absolute(text: str) -> str:
    """Returns the absolute path of a file; other texts, such as "imagenet", as they are."""
    return str(Path(text).absolute()) if Path(text).is_file() else text


def _make_folder(first: Path, *, unique: bool) -> Path:
    """Makes a folder; if it exists and is to be unique, one with a number appended."""
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        try:
            folder.mkdir(parents=True)
            break
        except OSError as error:
            if not (unique and folder.is_dir()):
                raise RunError(
                    f"The run folder {folder} cannot be made ({error.strerror}). "
                    "Choose another --output or --name."
                ) from error
    return folder


def open_model(path: Path) -> Run | None:
    """Returns the run in a folder, or None for a model file or an export.

    Raises:
        RunError: If the path is none of them.
    """
    if is_export(path):
        return None
    if path.suffix != ".keras":
        return Run.open(path)
    if not path.is_file():
        raise RunError(f"There is no model file {path}. Name a run's folder or a .keras file.")
    return None
