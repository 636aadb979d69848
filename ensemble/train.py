"""`python -m ensemble.train`: trains an ensemble or a baseline."""

import sys
from collections.abc import Sequence

from ensemble.cli import load_backend, read_experiment, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Trains on the data named by the arguments and writes a run folder."""
    return run_command(lambda: _train(argv))


def _train(argv: Sequence[str] | None) -> None:
    config = read_experiment(
        argv,
        prog="python -m ensemble.train",
        description="Train branches, fused into one shared head. One branch is a baseline.",
    )
    load_backend()
    from ensemble.experiment import fit

    print(fit(config).summary())


if __name__ == "__main__":
    sys.exit(main())
