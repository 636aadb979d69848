"""`python -m ensemble.prepare`: cuts the faces out of raw photos, for training."""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError
from configs.registry import unknown
from configs.schema import FaceSetConfig
from ensemble.cli.checks import find_face_errors, load_plugins
from ensemble.cli.command_line import read_settings, run_command
from ensemble.cli.effects import find_settings_without_effect
from ensemble.cli.flags import SettingsParser, describe_sources
from ensemble.data.registry import SOURCES


def main(argv: Sequence[str] | None = None) -> int:
    """Turns raw photos, with or without labels, into a clean set of faces."""
    return run_command(lambda: _prepare(argv))


def _prepare(argv: Sequence[str] | None) -> None:
    parser = SettingsParser(
        FaceSetConfig,
        parts=describe_sources,
        prog="python -m ensemble.prepare",
        description="Cut the faces out of raw photos, so that --data reads them. Started again, "
        "it goes on.",
    )
    parser.add_argument(
        "raw",
        nargs="+",
        type=Path,
        metavar="RAW",
        help="folder or .zip of photos, or .csv; laid out as --data of a training, or unlabelled",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FACES", help="folder of the faces"
    )
    args, settings = read_settings(parser, FaceSetConfig, argv)
    load_plugins(settings.plugins)
    mistakes = [
        *find_face_errors(settings.faces, automatic=True),
        *find_settings_without_effect(settings),
    ]
    if settings.source != "auto" and settings.source not in SOURCES:
        mistakes.append(unknown("source", settings.source, ["auto", *SOURCES.names()]))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    from ensemble.commands.prepare.face_set import prepare_faces

    print(prepare_faces(args.raw, args.output, settings))


if __name__ == "__main__":
    sys.exit(main())
