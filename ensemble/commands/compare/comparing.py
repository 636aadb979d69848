"""A comparison from its candidates to its sections, a file of all metrics, and figures."""

from collections.abc import Iterator, Sequence

from ensemble.commands.compare.candidates import Candidate
from ensemble.commands.compare.costs import Cost, describe_measurement, measure_costs
from ensemble.commands.compare.results import Result, compare_candidates
from ensemble.commands.compare.sections import comparison_sections, cost_section
from ensemble.metrics.metrics import METRICS
from ensemble.metrics.rendering import as_text
from ensemble.metrics.sections import find_figures
from ensemble.plots.figures import png
from ensemble.runs.run import Run


def write_comparison(candidates: Sequence[Candidate], folder: Run, *, timed: bool) -> str:
    """Compares candidates, writes text, metrics and figures into a folder and returns the text.

    Args:
        candidates: Runs and trials; the others are compared with the first one.
        folder: Where `comparison.txt`, `comparison.csv` and figures are written.
        timed: Whether the models are built and timed too.

    Raises:
        DataError: If they have predictions of different images.
        UserError: If a model cannot be loaded or built, or the folder cannot be written.
    """
    results = compare_candidates(candidates)
    sections = comparison_sections(results)
    costs: Sequence[Cost | None] = [None] * len(results)
    if timed:
        costs = measured = measure_costs(candidates)
        sections.append(cost_section(results, measured, describe_measurement()))
    for figure in find_figures(sections):
        folder.write(f"{figure.name}.png", png(figure.plot(**figure.data, title=figure.title)))
    rows = [dict(_row(*pair)) for pair in zip(results, costs, strict=True)]
    folder.write_table("comparison.csv", list(rows[0]), [list(row.values()) for row in rows])
    text = as_text(sections)
    folder.write("comparison.txt", f"{text}\n")
    return text


def _row(result: Result, cost: Cost | None) -> Iterator[tuple[str, object]]:
    """Yields column and cell of `comparison.csv`."""
    candidate, gain = result.candidate, result.against_first
    yield "candidate", candidate.name
    yield "branches", "+".join(candidate.branches)
    yield "seed", candidate.config.seed
    yield "images", result.metrics.images
    for name in METRICS:
        score = result.metrics.scores.get(name)
        yield name, score.value if score else ""
        if score and score.interval:
            yield f"{name}_low", score.interval.low
            yield f"{name}_high", score.interval.high
    yield "gain", gain.accuracy.value if gain else ""
    yield "gain_low", gain.accuracy.interval.low if gain else ""
    yield "gain_high", gain.accuracy.interval.high if gain else ""
    yield "mcnemar_p", gain.mcnemar.p_value if gain else ""
    yield "conclusion", gain.accuracy.conclusion if gain else ""
    yield "parameters", cost.parameters if cost else ""
    yield "seconds_single", cost.single if cost else ""
    yield "seconds_batch", cost.batch if cost else ""
