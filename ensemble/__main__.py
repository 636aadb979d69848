"""`ensemble COMMAND`, the same as `python -m ensemble.COMMAND`."""

import sys
from collections.abc import Sequence
from importlib import import_module

from configs.errors import ConfigError
from configs.registry import unknown
from ensemble.cli.command_line import run_command

COMMANDS = {
    "prepare": "cut the faces out of raw photos",
    "train": "train an ensemble or a baseline",
    "search": "try many settings and train the best of them",
    "evaluate": "evaluate a run on labelled images",
    "predict": "classify photos and videos with a trained model",
    "serve": "try a trained model in the browser, or ask it by HTTP",
    "export": "write a run's model for another runtime",
    "compare": "compare runs and trials, image by image",
    "report": "report one or several runs in one HTML file",
    "fuse": "fuse the predictions of finished runs into one model",
    "branches": "list the branches",
    "extract": "store the features for a training in advance",
    "cache": "list, verify or prune stored features",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    command, *rest = argv or ["--help"]
    if command in {"-h", "--help"}:
        print("usage: ensemble COMMAND [--help | ...]\n")
        print("\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items()))
        return 0
    if command not in COMMANDS:
        raise ConfigError(unknown("command", command, list(COMMANDS)))
    return import_module(f"ensemble.commands.{command}.__main__").main(rest)


if __name__ == "__main__":
    sys.exit(main())
