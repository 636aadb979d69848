"""`python -m ensemble.predict`: predictions for photos and videos with a trained model."""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, DataError
from ensemble.cli.checks import check_face_flags, load_plugins
from ensemble.cli.command_line import load_backend, run_command
from ensemble.cli.flags import Parser, add_prediction_flags
from ensemble.commands.predict.photos import (
    EVERY,
    Photo,
    find_photos,
    load_video_reader,
    read_frames,
)
from ensemble.model.runtimes import is_export
from ensemble.runs.run import Run, open_model
from ensemble.system.files import make_folder
from ensemble.system.text import table


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts photos; unreadable ones are reported and do not end the command."""
    return run_command(lambda: _predict(argv))


def _predict(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    if args.explain and args.output is None:
        raise ConfigError("--explain writes heat maps into --output FOLDER, which is missing.")
    if args.every < 1:
        raise ConfigError(f"--every is a number of frames, 1 or more. Received: {args.every}.")
    exported = is_export(args.run)
    if args.explain and exported:
        raise ConfigError(
            f"--explain needs the run that the export {args.run} was made of, whose branches "
            "are separate. Name that run."
        )
    run = open_model(args.run)
    load_plugins(run.config.plugins if run else [])
    search = check_face_flags(
        args.faces, args.face_model, args.face_threshold, largest=args.largest
    )
    photos = _read_words(args.photos)
    if args.output:
        make_folder(args.output)  # before the long work, so that a wrong one fails at once
    if any(photo.is_video for photo in photos):
        load_video_reader()
    if not exported:
        load_backend()

    from ensemble.commands.predict.pictures import PictureFolder
    from ensemble.commands.predict.predictor import Prediction, make_predictor
    from ensemble.commands.predict.texts import as_csv, as_json, summarize, table_rows
    from ensemble.system.progress import progress_bar

    predictor = make_predictor(run or args.run, search, args.min_confidence)
    detector, classes = predictor.search.settings.detector, predictor.classes
    pictures = PictureFolder(args.output) if args.output else None
    predictions: list[Prediction] = []

    def save() -> dict[str, str]:
        texts = {
            "json": as_json(str(args.run), detector, classes, predictions),
            "csv": as_csv(detector, classes, predictions),
        }
        if args.output:
            for ending, text in texts.items():
                Run(args.output).write(f"predictions.{ending}", text)
        return texts

    save()  # marks the folder as output, so that its pictures are never input
    with progress_bar("Predicting", len(photos)) as bar:
        for faces, found in predictor.predict_all(read_frames(photos, args.every)):
            predictions += found
            if pictures:
                pictures.add(faces, found, predictor if args.explain else None)
            bar.update()
    texts = save()
    if args.format in texts:
        print(texts[args.format], end="")
        return
    print("\n".join(table(table_rows(predictions))))
    where = f"; {args.output}/ holds predictions and pictures" if args.output else ""
    print(f"{summarize(detector, predictions)}{where}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m ensemble.predict",
        description="Find the faces in photos and videos and classify them with a trained model.",
    )
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="folder that ensemble.train or ensemble.export wrote, or a .keras file",
    )
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="image, video, folder, .zip, pattern such as 'party/*.jpg', table with a column path; "
        "- reads one image from standard input",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where predictions.json, predictions.csv and annotated pictures are written",
    )
    parser.add_argument(
        "--format", choices=("table", "json", "csv"), default="table", help="format of the output"
    )
    parser.add_argument(
        "--explain", action="store_true", help="write heat maps of each prediction into --output"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=EVERY,
        metavar="N",
        help=f"predict every Nth frame of a video (default: {EVERY})",
    )
    add_prediction_flags(parser)
    return parser


def _read_words(words: Sequence[str]) -> list[Photo]:
    photos = find_photos([word for word in words if word != "-"])
    if "-" in words:
        try:
            data = sys.stdin.buffer.read() if sys.stdin else b""  # None where it is closed
        except OSError as error:
            raise DataError(
                f"Standard input cannot be read ({error.strerror or error}). "
                "Send an image, or name one."
            ) from error
        if not data:
            raise DataError("Nothing came from standard input. Send an image, or name one.")
        photos.append(Photo("-", data))
    return photos


if __name__ == "__main__":
    sys.exit(main())
