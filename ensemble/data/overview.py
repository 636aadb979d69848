"""What lies at a location that no source reads, and what would make it readable."""

from collections import Counter
from pathlib import Path, PurePosixPath

from ensemble.data.files import is_image, is_table
from ensemble.data.registry import Location
from ensemble.data.tables import Table, find_tables

_SHOWN = 4  # folders and tables


def describe_found(location: Location) -> str:
    """Returns sentences that list the images and tables of a location, and what is nearest."""
    files = location.files
    images = Counter(str(PurePosixPath(n).parent) for n in files.names() if is_image(n))
    tables = find_tables(location, lambda _: True)
    lines = [
        f"Found: {_describe_images(images)}; {_describe_tables(tables)}.",
        _nearest(images, tables),
        *(f"{note[0].upper()}{note[1:]}." for note in files.notes[:_SHOWN]),
    ]
    others = [name for name in files.names() if not is_image(name) and not is_table(Path(name))]
    if not images and others:
        endings = Counter(PurePosixPath(name).suffix or name for name in others)
        shown = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(_SHOWN))
        lines.insert(1, f"Other files: {shown}.")
    return " ".join(lines)


def _describe_images(images: Counter[str]) -> str:
    if not images:
        return "no image"
    shown = [
        f"{count} in {'the folder itself' if folder == '.' else repr(folder)}"
        for folder, count in sorted(images.items())[:_SHOWN]
    ]
    more = f" and {len(images) - _SHOWN} further folders" if len(images) > _SHOWN else ""
    return f"{images.total()} images ({', '.join(shown)}{more})"


def _describe_tables(tables: list[Table]) -> str:
    if not tables:
        return "no table"
    return ", ".join(
        f"'{table.name}' with the columns {', '.join(table.columns[:8]) or '(none)'}"
        for table in tables[:_SHOWN]
    )


def _nearest(images: Counter[str], tables: list[Table]) -> str:
    halves = [table for table in tables if {"path", "label"} & table.meanings.keys()]
    if halves:
        table = halves[0]
        lacking = "path" if "label" in table.meanings else "label"
        return (
            f"Nearest is a table: '{table.name}' lacks a column called {lacking}. Add it, or name "
            "another table with --labels."
        )
    if not images:
        return "Give a folder or .zip of images as --data."
    folders = [folder for folder in images if folder != "."]
    if folders:
        return (
            "Nearest are class folders, such as train/happy/1.png or happy/1.png, of two classes "
            "at least. Sort the images so, or give a CSV with path and label as --labels."
        )
    return (
        "The images have no labels. Give a CSV with path and label as --labels, or sort them into "
        "a folder for each class."
    )
