"""Folders that the commands of this package write. Their pictures are never input."""

import posixpath
from collections.abc import Collection, Mapping
from typing import NamedTuple


class Output(NamedTuple):
    """What a command leaves in a folder.

    Args:
        command: The command that wrote the folder, such as "train".
        files: Files that together show that it did.
        pictures: Files and folders in it that are never input; empty: all of them.
        is_input: Whether the rest of the folder is input where the folder itself is given.
        is_nested_input: Whether the rest is input where a folder above is given.
    """

    command: str
    files: frozenset[str]
    pictures: frozenset[str] = frozenset()
    is_input: bool = False
    is_nested_input: bool = False


_SHEET = frozenset({"contact_sheet.png"})
_OUTPUTS = (
    Output("train", frozenset({"config.yaml", "environment.json"})),
    Output("train", frozenset({"config.yaml", "split.csv"})),  # while it is training
    Output("search", frozenset({"search.yaml"})),
    Output("evaluate", frozenset({"report.json", "confusion.csv"})),
    Output("compare", frozenset({"comparison.csv", "comparison.txt"})),
    Output("prepare", frozenset({".journal.jsonl"}), _SHEET, is_input=True),
    Output("prepare", frozenset({"manifest.csv", "left_out.csv"}), _SHEET, is_input=True),
    Output(
        "predict",
        frozenset({"predictions.csv", "predictions.json"}),
        frozenset({"pictures", "heat_maps"}),
        is_input=True,
        is_nested_input=True,
    ),
)


def find_output(names: Collection[str]) -> Output | None:
    """Returns what a folder with files of these names is the output of, if of anything."""
    return next((output for output in _OUTPUTS if output.files <= set(names)), None)


def find_outputs(listing: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Finds what commands of this package left among the folders of a root.

    Args:
        listing: Folder, as a path in the root ("" for the root), to the names in it.

    Returns:
        Path of a file or folder that is never input, to the command that wrote it.
    """
    found: dict[str, str] = {}
    for folder, names in listing.items():
        output = find_output(names)
        if output is None:
            continue
        if output.is_nested_input or (output.is_input and not folder):
            pictures = {posixpath.join(folder, name) for name in output.pictures}
        else:
            pictures = {folder}
        found |= dict.fromkeys(pictures, output.command)
    return found
