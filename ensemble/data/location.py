"""Where the user says that the data is."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.schema import VoteProtocol
from ensemble.data.files import Files, is_table, missing, open_files


@dataclass(frozen=True)
class Location:
    """Where the user says the data is.

    Args:
        roots: Folders, .zip archives or .csv files; empty for the demo.
        labels: A CSV of labels or votes, or None. A relative name that does not
            exist on disk may be a member of an archive among `roots`.
        protocol: How votes become a label; see `ensemble.data.sources.fer`.
    """

    roots: tuple[Path, ...] = ()
    labels: Path | None = None
    protocol: VoteProtocol = "majority"

    @cached_property
    def files(self) -> Files:
        """The files of all roots that are no tables, listed once.

        Raises:
            DataError: As `ensemble.data.files.open_files`.
        """
        return open_files([root for root in self.roots if not is_table(root)])


def find_missing(location: Location) -> list[str]:
    """Returns a sentence for each path of a location that does not exist.

    Labels may be a file inside a root: those are searched for in folders, but not in archives.
    """
    paths = [root for root in location.roots if not root.exists()]
    labels, folders = location.labels, [root for root in location.roots if root.is_dir()]
    if labels and not labels.exists() and len(folders) == len(location.roots):
        inside = (path for root in folders for path in root.rglob(labels.name))
        if labels.is_absolute() or next(inside, None) is None:
            paths.append(labels)
    return [str(missing(path)) for path in paths]
