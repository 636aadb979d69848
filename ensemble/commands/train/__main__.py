"""`python -m ensemble.train`: trains an ensemble or a baseline."""

import sys
from collections.abc import Sequence

from ensemble.cli.command_line import load_backend, read_experiment, run_command
from ensemble.data.loading import check_location
from ensemble.runs.reproduction import compare_traces, read_trace


def main(argv: Sequence[str] | None = None) -> int:
    """Trains on the data named by the arguments and writes a run folder."""
    return run_command(lambda: _train(argv))


def _train(argv: Sequence[str] | None) -> int:
    config, resumed, reproduced = read_experiment(
        argv,
        prog="python -m ensemble.train",
        description="Train branches, fused into one shared head. One branch is a baseline.",
        of_runs=True,
    )
    original = None if reproduced is None else read_trace(reproduced)
    check_location(config.data)
    load_backend(joining=True)
    from ensemble.experiment import fit, resume

    if resumed is not None:
        result = resume(resumed, config)
    else:
        result = fit(config, begun=original.warn_of_changes if original else None)
    if result.run.writes:  # of several processes one tells
        print(result.summary())
    if result.history.interrupted:
        raise KeyboardInterrupt
    if original is None or not result.run.writes:
        return 0
    verdict = compare_traces(original, read_trace(result.run.folder))
    print(verdict.summary())
    return 1 if verdict.differences else 0


if __name__ == "__main__":
    sys.exit(main())
