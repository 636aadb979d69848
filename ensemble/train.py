"""`python -m ensemble.train`: trains an ensemble or a baseline."""

import sys
from collections.abc import Sequence

from ensemble.cli import load_backend, read_experiment, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Trains on the data named by the arguments and writes a run folder."""
    return run_command(lambda: _train(argv))


def _train(argv: Sequence[str] | None) -> None:
    config, folder = read_experiment(
        argv,
        prog="python -m ensemble.train",
        description="Train branches, fused into one shared head. One branch is a baseline.",
        resumable=True,
    )
    load_backend(joining=True)
    from ensemble.experiment import fit, resume

    result = fit(config) if folder is None else resume(folder, config)
    if result.run.writes:  # of several processes one tells
        print(result.summary())
    if result.history.interrupted:
        raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
