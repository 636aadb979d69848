"""`python -m ensemble.evaluate`: evaluates a run's model on labelled images."""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError
from configs.schema import DataConfig, EvaluationConfig
from ensemble.cli.checks import load_plugins
from ensemble.cli.command_line import load_backend, read_section, read_settings, run_command
from ensemble.cli.flags import SettingsParser
from ensemble.data.loading import check_location
from ensemble.data.registry import SOURCES
from ensemble.runs.run import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates a run on its own validation images, or on other data that shares its classes."""
    return run_command(lambda: _evaluate(argv))


def _evaluate(argv: Sequence[str] | None) -> None:
    parser = SettingsParser(
        EvaluationConfig,
        parts=lambda: "",
        prog="python -m ensemble.evaluate",
        description="Evaluate a run's model on labelled images; the report goes into the run.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that ensemble.train wrote")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="folder, .zip or .csv of images; several with commas; none: the run's own",
    )
    parser.add_argument("--labels", metavar="CSV", help="labels or votes for the images of --data")
    parser.add_argument("--source", metavar="NAME", help="how --data is laid out (default: auto)")
    parser.add_argument("--merge", metavar="NEW=A+B,...", help="classes of --data to be joined")
    parser.add_argument(
        "--protocol", metavar="NAME", help="how votes become a label (default: majority)"
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test", "all"),
        help="which images (default: the run's own validation images; of other data the test "
        "images, else the validation images, else all)",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="average the probabilities of each image and of its mirror image",
    )
    args, judging = read_settings(parser, EvaluationConfig, argv)
    names = ("labels", "source", "merge", "protocol")
    given = {"root": args.data, **{name: getattr(args, name) for name in names}}
    data = read_section(DataConfig, {key: text for key, text in given.items() if text is not None})
    if data.source != "auto":
        SOURCES.get(data.source)
    idle = [f"--{name}" for name in names if given[name] is not None and not data.root]
    if idle:
        raise ConfigError(
            f"{' and '.join(idle)} without --data: the run's own images are read as it read them. "
            "Add --data, or leave it out."
        )
    if judging.map and (not data.root or data.merge):
        raise ConfigError(
            "--map says which labels of other data mean which classes of the run: it needs --data, "
            "and joins labels too (CLASS=A+B), so leave --merge out."
        )
    run = Run.open(args.run)
    load_plugins(run.config.plugins)
    if data.root:
        check_location(data)
    load_backend()
    from ensemble.metrics.evaluating import evaluate_run
    from ensemble.metrics.report_sections import summarize

    report, folder = evaluate_run(
        run,
        data if data.root else None,
        part=args.split,
        flip=args.flip,
        shared=judging.map or None,
        group=judging.group,
    )
    print(f"{summarize(report)}\n{run.folder / folder}/ holds report.md, confusion.png and more")


if __name__ == "__main__":
    sys.exit(main())
