"""`python -m ensemble.extract`: stores the features for a training in advance."""

import sys
from collections.abc import Sequence

from ensemble.cli.command_line import load_backend, read_experiment, run_command
from ensemble.data.loading import check_location


def main(argv: Sequence[str] | None = None) -> int:
    """Extracts the features that a training with the same arguments would need."""
    return run_command(lambda: _extract(argv))


def _extract(argv: Sequence[str] | None) -> None:
    config, *_ = read_experiment(
        argv,
        prog="python -m ensemble.extract",
        description="Extract and store the features that a training with these settings reads.",
    )
    check_location(config.data)
    load_backend()
    from ensemble.features.extraction import fill_store

    print(fill_store(config))


if __name__ == "__main__":
    sys.exit(main())
