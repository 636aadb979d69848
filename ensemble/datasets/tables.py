"""CSV tables of labels: where they are and how their rows are read."""

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from configs.errors import DataError
from ensemble.datasets.files import READ_ERRORS, Files, missing, open_files
from ensemble.datasets.registry import Location


@dataclass(frozen=True)
class Table:
    """A CSV file in UTF-8, its columns parted by comma, semicolon or tab.

    Args:
        name: The file's name in messages.
        path: Its absolute path, an archive taken for a folder.
        stream: Opens the file.
        columns: The header in lower case, without blanks around a name.
        delimiter: What parts the columns.
    """

    name: str
    path: str
    stream: Callable[[], BinaryIO]
    columns: tuple[str, ...]
    delimiter: str

    def row_name(self, number: int) -> str:
        """Returns how a row is called in messages, as in `legend.csv:17`."""
        return f"{self.name}:{number}"

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields the number of each row that is not blank, and its cells by column.

        Numbers are those of a spreadsheet: the header is row 1. Cells have no
        outer blanks; where a row is short they are empty.

        Raises:
            DataError: If the file is no CSV in UTF-8.
        """
        with _reading(self.name, self.stream) as text:
            for number, cells in enumerate(csv.reader(text, delimiter=self.delimiter), start=1):
                if number > 1 and any(cells):
                    pairs = zip_longest(self.columns, cells[: len(self.columns)], fillvalue="")
                    yield number, {column: cell.strip() for column, cell in pairs}


def find_tables(location: Location, wanted: Callable[[Table], bool]) -> list[Table]:
    """Returns the tables of a location whose header is the wanted one.

    The table given as `labels` is the only candidate; without it, .csv files
    among the roots are; without those, all .csv files inside the roots.

    Raises:
        DataError: If a table or a root does not exist or cannot be read.
    """
    return [table for table in _candidates(location) if wanted(table)]


def find_table(location: Location, wanted: Callable[[Table], bool], header: str) -> Table:
    """Returns the one table of a location whose header is the wanted one.

    Args:
        location: Where to look, as in `find_tables`.
        wanted: Whether a table will do.
        header: The wanted header, for the message.

    Raises:
        DataError: If there is no such table, or more than one.
    """
    tables = find_tables(location, wanted)
    if not tables:
        place = ", ".join(str(path) for path in (*location.roots, location.labels) if path)
        raise DataError(f"There is no CSV with the header {header} in '{place}'.")
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise DataError(f"Several tables could be meant: {names}. Name one with --labels.")
    return tables[0]


def open_images(location: Location, table: Table) -> Files:
    """Opens the roots that hold the images of a table: its own folder if none is given."""
    roots = [root for root in location.roots if not _is_table(root)]
    return open_files(roots or [Path(table.path).parent])


def _candidates(location: Location) -> Iterator[Table]:
    if location.labels and location.labels.is_file():
        yield _table_on_disk(location.labels)
        return
    tables = [root for root in location.roots if _is_table(root)]
    if tables and not location.labels:
        yield from map(_table_on_disk, tables)
        return
    files = open_files([root for root in location.roots if not _is_table(root)])
    names = [name for name in files.names() if _is_table(Path(name))]
    if location.labels:
        inner = f"/{location.labels.as_posix()}"
        names = [name for name in names if f"/{name}".endswith(inner)]
        if not names:
            raise missing(location.labels)
    for name in names:
        yield _open_table(name, files.path(name), partial(files.open, name))


def _table_on_disk(path: Path) -> Table:
    if not path.is_file():
        raise missing(path)
    return _open_table(path.name, path.resolve().as_posix(), lambda: path.open("rb"))


def _open_table(name: str, path: str, stream: Callable[[], BinaryIO]) -> Table:
    # A table that is not UTF-8 is refused when its rows are read, not when it
    # merely lies beside the data.
    with _reading(name, stream, errors="replace") as text:
        header = text.readline(2**16)
        delimiter = max(",;\t", key=header.count)
        cells = next(csv.reader([header], delimiter=delimiter), [])
    return Table(name, path, stream, tuple(cell.strip().lower() for cell in cells), delimiter)


@contextmanager
def _reading(
    name: str, stream: Callable[[], BinaryIO], errors: str = "strict"
) -> Iterator[io.TextIOWrapper]:
    try:
        with io.TextIOWrapper(stream(), "utf-8-sig", errors, newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise DataError(f"'{name}' is not UTF-8 text. Save it as CSV in UTF-8.") from error
    except (csv.Error, *READ_ERRORS) as error:
        raise DataError(f"'{name}' cannot be read as CSV: {error}.") from error


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in {".csv", ".tsv"}
