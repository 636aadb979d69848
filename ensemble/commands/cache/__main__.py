"""`python -m ensemble.cache`: lists, verifies and prunes stored features."""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from configs.errors import StoreError
from ensemble.cli.command_line import run_command
from ensemble.cli.flags import Parser
from ensemble.features.store import PIPELINE, FeatureGroup, FeatureStore
from ensemble.system.text import table

_HEADER = ("features", "grid", "images", "views", "MB", "last used")
_DAY = 86_400  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Lists, verifies or prunes stored features."""
    return run_command(lambda: _cache(argv))


def _cache(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m ensemble.cache",
        description="List, verify or prune the stored features of frozen branches.",
    )
    parser.add_argument(
        "action",
        choices=("list", "verify", "prune"),
        help="list: show the features; verify: check every file; prune: remove what is damaged, "
        "unfinished or outdated, and what --unused-for and --all select",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=os.environ.get("ENSEMBLE_CACHE"),
        metavar="FOLDER",
        help="folder of stored features (default: ENSEMBLE_CACHE, else a folder in your cache)",
    )
    parser.add_argument(
        "--unused-for", type=float, metavar="DAYS", help="prune: also features unused for so long"
    )
    parser.add_argument("--all", action="store_true", help="prune: everything")
    args = parser.parse_args(argv)
    if args.action != "prune" and (args.all or args.unused_for is not None):
        parser.error("--all and --unused-for go with prune")
    store = FeatureStore(args.cache)
    groups = store.groups()
    if args.action == "list":
        _list(groups)
    elif args.action == "verify":
        _verify(groups)
    else:
        _prune(groups, everything=args.all, unused_for=args.unused_for)
    size = sum(group.byte_count() for group in store.groups())
    print(f"{size / 1e6:,.1f} MB in {store.folder}")


def _list(groups: Sequence[FeatureGroup]) -> None:
    rows = [
        (
            group.folder.name,
            " x ".join(map(str, group.key.shape)),
            f"{group.image_count():,}",
            str(len(group.views())),
            f"{group.byte_count() / 1e6:,.1f}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(group.last_used())),
        )
        for group in groups
    ]
    for line in table([_HEADER, *rows]):
        print(line)


def _verify(groups: Sequence[FeatureGroup]) -> None:
    found = [result for group in groups for result in group.verify()]
    damaged = [f"{path} is damaged: {reason}." for path, reason in found if reason]
    if damaged:
        raise StoreError(
            "\n".join(damaged) + f"\n{len(damaged)} of {len(found)} files; `prune` removes them, "
            "and their features are extracted again when they are needed."
        )
    print(f"{len(found):,} files are sound")


def _prune(groups: Sequence[FeatureGroup], *, everything: bool, unused_for: float | None) -> None:
    for group in groups:
        unused = (time.time() - group.last_used()) / _DAY
        outdated = group.key.pipeline != PIPELINE
        with group.locked(partial(print, f"waiting for {group.folder.name}, which is in use")):
            if everything or outdated or (unused_for is not None and unused >= unused_for):
                group.remove()
                print(f"{group.folder.name} is removed")
                continue
            for path, reason in group.verify():
                if reason:
                    path.unlink(missing_ok=True)
                    print(f"{path} is removed: {reason}")


if __name__ == "__main__":
    sys.exit(main())
