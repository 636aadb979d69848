"""`python -m ensemble.branches`: a table of all branches."""

import sys
from collections.abc import Sequence

from branches.registry import BRANCHES, BranchSpec
from ensemble.cli.checks import load_plugins
from ensemble.cli.command_line import load_backend, run_command
from ensemble.cli.flags import Parser
from ensemble.system.text import table

_HEADER = (
    "name", "parameters", "min px", "channels", "grid at 96 px", "ImageNet weights", "stages",
    "reference",
)  # fmt: skip
_SIZE = 96  # pixels


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table of all branches."""
    return run_command(lambda: _list(argv))


def _list(argv: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m ensemble.branches", description="List all branches.")
    parser.add_argument(
        "--plugins", metavar="MODULE,...", default="", help="modules or .py files of your own"
    )
    args = parser.parse_args(argv)
    load_plugins([plugin for plugin in args.plugins.split(",") if plugin])
    specs = sorted(BRANCHES, key=lambda spec: spec.name)
    load_backend()
    for line in table([_HEADER, *(_row(spec) for spec in specs)]):
        print(line)


def _row(spec: BranchSpec) -> tuple[str, ...]:
    from branches.builder import build_branch

    size = max(_SIZE, spec.min_size)
    branch = build_branch(spec.name, input_shape=(size, size, 3), weights="random")
    _, height, width, channels = branch.output_shape
    return (
        spec.name,
        f"{branch.count_params():,}",
        str(spec.min_size),
        str(channels),
        f"{height} x {width}" + (f" at {size}" if size != _SIZE else ""),
        spec.weights_licence or "none published",
        ", ".join(spec.stages) or "none named",
        spec.reference,
    )


if __name__ == "__main__":
    sys.exit(main())
