"""Tables of labels: where they are and how their rows are read, in one way for all commands."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from configs.errors import DataError
from ensemble.data.files import ENTRY_LIMIT, READ_ERRORS, Files, is_table, missing, open_files
from ensemble.data.location import Location

# What a column may be called, without case, blanks and punctuation, the preferred name
# first. Neither "user" nor "user.id" is a group: it may be the person who labelled, not
# the one pictured.
_MEANINGS = {
    "path": (
        *("path", "imagepath", "imgpath", "filepath", "subdirectoryfilepath", "pth", "image"),
        *("img", "file", "filename", "imagefile", "imagename", "imgname", "photo", "picture"),
        "name",
    ),
    "label": (
        *("label", "labels", "emotion", "emotions", "class", "classname", "target", "expression"),
        *("facialexpression", "category"),
    ),
    "split": ("split", "usage", "subset", "partition", "set"),
    "group": (
        *("group", "groupid", "subject", "subjectid", "person", "personid", "identity", "video"),
        "videoid",
    ),
    "weight": ("weight", "sampleweight"),
}

_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATOR_LINE = re.compile(r"sep=[,;\t]\r?\n")  # what Excel reads before the header
_HEAD = 2**16  # characters that hold the header

# The pixels of a large image are one cell.
csv.field_size_limit(ENTRY_LIMIT)

Row = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """A table of text (comma, semicolon or tab), of JSON lines or in Parquet.

    Args:
        name: The file's name in messages.
        path: Its absolute path, an archive taken for a folder.
        columns: The header in lower case, without blanks around a name.
        read: Yields the number of each row that is not blank, and its values by column.
    """

    name: str
    path: str
    columns: tuple[str, ...]
    read: Callable[[], Iterator[Row]]

    @cached_property
    def meanings(self) -> dict[str, str]:
        """Column of "path", "label", "split", "group" and "weight", for those there are."""
        squeezed = {re.sub(r"[\W_]", "", column): column for column in reversed(self.columns)}
        columns = {}
        for meaning, names in _MEANINGS.items():
            name = next((name for name in names if name in squeezed), None)
            if name is not None:
                columns[meaning] = squeezed[name]
        return columns

    def row_name(self, number: int) -> str:
        """Returns how a row is called in messages, as in `legend.csv:17`."""
        return f"{self.name}:{number}"

    def values(self) -> Iterator[Row]:
        """Yields the number of each row that is not blank, and its values by column.

        Numbers are those of a spreadsheet: the header is row 1. JSON lines and
        Parquet have none and begin with 1; their values need not be text.

        Raises:
            DataError: If the file is corrupt, or a row does not fit the header.
        """
        with _reading(self.name):
            yield from self.read()

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields what `values` does as text without outer blanks, empty where there is none."""
        for number, values in self.values():
            yield number, {column: _text(value) for column, value in values.items()}


def open_table(path: Path) -> Table:
    """Reads the header of a table on disk.

    Raises:
        DataError: If the file does not exist or is not a table.
    """
    if not path.is_file():
        raise missing(path)
    return _open(path.name, path.resolve().as_posix(), lambda: path.open("rb"))


def open_inner_table(files: Files, name: str) -> Table:
    """Reads the header of a table among the files of folders and archives.

    Raises:
        DataError: If the file is not a table.
    """
    return _open(name, files.path(name), partial(files.open, name))


def find_tables(location: Location, wanted: Callable[[Table], bool]) -> list[Table]:
    """Returns the tables of a location whose header is the wanted one.

    The table given as `labels` is the only candidate; without it, tables among
    the roots are; without those, all tables of text inside the roots.

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
    roots = [root for root in location.roots if not is_table(root)]
    return open_files(roots or [Path(table.path).parent])


def _candidates(location: Location) -> Iterator[Table]:
    if location.labels and location.labels.is_file():
        yield open_table(location.labels)
        return
    tables = [root for root in location.roots if is_table(root)]
    if tables and not location.labels:
        yield from map(open_table, tables)
        return
    files = open_files([root for root in location.roots if not is_table(root)])
    names = [name for name in files.names() if is_table(Path(name))]
    if location.labels:
        inner = f"/{location.labels.as_posix()}"
        names = [name for name in names if f"/{name}".endswith(inner)]
        if not names:
            raise missing(location.labels)
    else:  # what merely lies beside the data needs no further library
        names = [name for name in names if not name.lower().endswith(".parquet")]
    for name in names:
        yield open_inner_table(files, name)


def _open(name: str, path: str, stream: Callable[[], BinaryIO]) -> Table:
    opener = _OPENERS.get(Path(name).suffix.lower(), _open_text)
    with _reading(name):
        columns, read = opener(name, stream)
    return Table(name, path, tuple(columns), read)


def _open_text(
    name: str, stream: Callable[[], BinaryIO]
) -> tuple[list[str], Callable[[], Iterator[Row]]]:
    with stream() as file:
        encoding = _find_encoding(file.read(4))
    # A table in another encoding is an error when its rows are read, not when it
    # merely lies beside the data.
    with io.TextIOWrapper(stream(), encoding, "replace", newline="") as text:
        head = text.read(_HEAD)
    hint = _SEPARATOR_LINE.match(head)
    head = head[hint.end() if hint else 0 :]
    delimiter = max(",;\t", key=head.partition("\n")[0].count)
    header = next(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter), [])
    columns = list(map(_fold, header))

    def read() -> Iterator[Row]:
        _check_distinct(name, columns)
        with io.TextIOWrapper(stream(), encoding, newline="") as text:
            if hint:
                text.readline()
            for number, cells in islice(_split(name, text, delimiter), 1, None):
                if any(cells):
                    yield number, dict(zip_longest(columns, cells[: len(columns)], fillvalue=""))

    return columns, read


def _split(name: str, text: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the number and the cells of each row of CSV, the header included."""
    lines: list[str] = []  # of one row

    def remember() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    reader = csv.reader(remember(), delimiter=delimiter, skipinitialspace=True, strict=True)
    number = width = 0
    while True:
        lines.clear()
        begin = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"'{name}' is not valid CSV in the row that begins in line {begin} ({error}). "
                "Close its quotes, and write a quote inside a quoted text twice."
            ) from error
        if cells is None:
            return
        number += 1
        width = width or len(cells)
        surplus = width - 1
        whole = [line.count(delimiter) == surplus for line in lines if line.strip()]
        if surplus and len(whole) > 1 and all(whole):
            raise DataError(
                f"A quote opens in line {begin} of '{name}' and closes in line "
                f"{reader.line_num}, after what look like rows of their own. Close it in line "
                f"{begin}, or remove it."
            )
        if any(cells[width:]):
            raise DataError(
                f"Line {begin} of '{name}' has {len(cells)} cells, its header has {width}. "
                f"Put a text that holds '{delimiter}' in quotes."
            )
        yield number, cells


def _open_lines(
    name: str, stream: Callable[[], BinaryIO]
) -> tuple[list[str], Callable[[], Iterator[Row]]]:
    with stream() as file:
        encoding = _find_encoding(file.read(4))

    def read(errors: str = "strict") -> Iterator[Row]:
        first: dict[str, Any] = {}
        with io.TextIOWrapper(stream(), encoding, errors) as text:
            for number, line in enumerate(text, start=1):
                if line.strip():
                    values = _read_line(line, f"{name}:{number}")
                    first = first or dict.fromkeys(values)
                    if surplus := values.keys() - first:
                        raise DataError(
                            f"'{name}:{number}' has the key '{min(surplus)}', which the first "
                            "line lacks. Add it there, null where there is no value."
                        )
                    yield number, first | values

    return list(next(read("replace"), (1, {}))[1]), read


def _read_line(line: str, place: str) -> dict[str, Any]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_distinct(place, [key for key, _ in pairs])
        return dict(pairs)

    try:
        values = json.loads(line, object_pairs_hook=build)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{place}' is not valid JSON ({error}).") from error
    if not isinstance(values, dict):
        raise DataError(f'\'{place}\' must be an object such as {{"file_name": "1.png"}}.')
    return {_fold(key): value for key, value in values.items()}


def _open_parquet(
    name: str, stream: Callable[[], BinaryIO]
) -> tuple[list[str], Callable[[], Iterator[Row]]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"'{name}' is in Parquet, which needs pyarrow ({error}). Install the extra "
            "`parquet`, or save the table as CSV."
        ) from error

    def read() -> Iterator[Row]:
        _check_distinct(name, columns)
        with stream() as file:
            number = 0
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    number += 1
                    yield (
                        number,
                        {
                            _fold(column): _name_class(value, classes.get(column))
                            for column, value in values.items()
                        },
                    )

    with stream() as file:
        schema = parquet.ParquetFile(file).schema_arrow
    columns = list(map(_fold, schema.names))
    classes = _read_class_names(schema.metadata or {})
    return columns, read


def _read_class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Returns the class names of each column of class numbers, as `datasets` stores them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: feature["names"]
            for column, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _name_class(value: Any, names: list[str] | None) -> Any:
    if names and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return value


def _find_encoding(head: bytes) -> str:
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            return encoding
    if len(head) > 1 and 0 in head[:2]:  # no character of a header is 0
        return "utf-16-le" if head[1] == 0 else "utf-16-be"
    return "utf-8"


def _check_distinct(place: str, columns: list[str]) -> None:
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"'{place}' has the column '{twice}' more than once. Rename one.")


def _text(value: Any) -> str:
    if value is None or isinstance(value, bytes | Mapping | list):
        return ""
    return str(value).strip()


def _fold(column: str) -> str:
    return column.strip().lower()


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"'{name}' is not UTF-8 text. Save it as CSV in UTF-8.") from error
    except (csv.Error, ValueError, *READ_ERRORS) as error:
        raise DataError(f"'{name}' cannot be read as a table: {error}.") from error


_OPENERS = {".jsonl": _open_lines, ".ndjson": _open_lines, ".parquet": _open_parquet}
