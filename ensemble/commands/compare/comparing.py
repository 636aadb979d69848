"""A comparison from its candidates to its tables, a file of all figures, and pictures."""

from collections.abc import Sequence

from ensemble.commands.compare.candidates import Candidate
from ensemble.commands.compare.costs import Cost, describe_measurement, measure_costs
from ensemble.commands.compare.tables import (
    Table,
    cost_table,
    figure_table,
    gain_table,
    report_table,
    seed_table,
    short_names,
    study_tables,
)
from ensemble.commands.compare.verdicts import (
    Standing,
    compare_candidates,
    gains_of_fusion,
    spread_over_seeds,
)
from ensemble.plots.curves import plot_histories
from ensemble.plots.figures import png
from ensemble.plots.tradeoff import plot_tradeoff
from ensemble.runs.run import Run

_COLUMNS = (
    *("candidate", "branches", "seed", "images", "accuracy", "accuracy_low", "accuracy_high"),
    *("macro_f1", "macro_f1_low", "macro_f1_high", "gain", "gain_low", "gain_high"),
    *("mcnemar_p", "verdict", "parameters", "seconds_single", "seconds_batch"),
)


def describe_comparison(
    candidates: Sequence[Candidate], folder: Run, *, timed: bool
) -> list[Table]:
    """Compares candidates, writes figures and pictures into a folder and returns the tables.

    Args:
        candidates: Runs and trials; the first one is what the others are held against.
        folder: Where `comparison.csv`, `curves.png` and `tradeoff.png` go.
        timed: Whether the models are built and timed too.

    Raises:
        DataError: If they answered different images.
        UserError: If a model cannot be loaded or built, or the folder cannot be written.
    """
    standings = compare_candidates(candidates)
    spreads, gains = spread_over_seeds(standings), gains_of_fusion(standings)
    tables = [figure_table(standings)]
    tables += [seed_table(spreads)] if spreads else []
    tables += [gain_table(gains)] if gains else []
    tables += study_tables(standings)
    tables.append(report_table(standings))
    costs: list[Cost] | None = None
    if timed:
        costs = measure_costs(candidates)
        tables.append(cost_table(standings, costs, describe_measurement()))
        folder.write("tradeoff.png", _draw_tradeoff(standings, costs))
    curves = {
        name: standing.candidate.history
        for name, standing in zip(short_names(standings), standings, strict=True)
        if standing.candidate.history
    }
    if curves:
        folder.write("curves.png", png(plot_histories(curves, "Accuracy and loss of each setting")))
    folder.write_table("comparison.csv", _COLUMNS, _rows(standings, costs))
    return tables


def _draw_tradeoff(standings: Sequence[Standing], costs: Sequence[Cost]) -> bytes:
    accuracies = [
        (each.metrics.accuracy, each.intervals.accuracy.low, each.intervals.accuracy.high)
        for each in standings
    ]
    f1 = [
        (each.metrics.macro.f1, each.intervals.macro_f1.low, each.intervals.macro_f1.high)
        for each in standings
    ]
    figure = plot_tradeoff(
        short_names(standings),
        [len(each.candidate.branches) for each in standings],
        {"Accuracy": accuracies, "Macro-F1": f1},
        {
            "Parameters (millions)": [cost.parameters / 1e6 for cost in costs],
            "Time, one image (ms)": [1000 * cost.single for cost in costs],
            "Time an image, in batches (ms)": [1000 * cost.batch for cost in costs],
        },
        f"Quality against cost, {standings[0].metrics.images:,} images, 95 % intervals; "
        "equal costs side by side",
    )
    return png(figure)


def _rows(standings: Sequence[Standing], costs: Sequence[Cost] | None) -> list[list[object]]:
    rows = []
    for index, standing in enumerate(standings):
        candidate, accuracy, f1 = (
            standing.candidate,
            standing.intervals.accuracy,
            standing.intervals.macro_f1,
        )
        row: list[object] = [candidate.name, "+".join(candidate.branches), candidate.config.seed]
        row += [standing.metrics.images, standing.metrics.accuracy, accuracy.low, accuracy.high]
        row += [standing.metrics.macro.f1, f1.low, f1.high]
        if standing.against_first is None:
            row += [""] * 5
        else:
            gain, test = standing.against_first.accuracy, standing.against_first.mcnemar
            row += [gain.value, gain.interval.low, gain.interval.high, test.p_value, gain.verdict]
        if costs is None:
            row += [""] * 3
        else:
            row += [costs[index].parameters, costs[index].single, costs[index].batch]
        rows.append(row)
    return rows
