"""A comparison as sections, for the screen, a file and a page."""

from collections.abc import Sequence

from ensemble.commands.compare.costs import Cost
from ensemble.commands.compare.published import published_rows, published_sections
from ensemble.commands.compare.results import (
    Gain,
    Result,
    Spread,
    gains_of_fusion,
    spread_over_seeds,
)
from ensemble.commands.search.spaces import label
from ensemble.metrics.intervals import METHOD
from ensemble.metrics.metrics import Metrics, headline_metrics
from ensemble.metrics.sections import Figure, Section, Table
from ensemble.plots.curves import plot_histories
from ensemble.plots.intervals import plot_intervals
from ensemble.plots.tradeoff import plot_tradeoff


def comparison_sections(results: Sequence[Result]) -> list[Section]:
    """Returns the sections of a comparison with the first candidate."""
    spreads, gains = spread_over_seeds(results), gains_of_fusion(results)
    return [
        _score_section(results),
        *([_seed_section(spreads)] if spreads else []),
        *([_gain_section(gains)] if gains else []),
        *published_sections(results),
        _class_section(results),
    ]


def cost_section(results: Sequence[Result], costs: Sequence[Cost], how: str) -> Section:
    """Returns headline metrics beside parameters and time, and how these were measured."""
    metrics = headline_metrics()
    header = ["Candidate", "Branches", *(metric.title for metric in metrics)]
    header += ["Parameters", "ms, one image", "ms per image, batch"]
    rows = [
        [
            result.candidate.name,
            label(result.candidate.settings["model.branches"]),
            *_scores(result.metrics),
            f"{cost.parameters:,}",
            f"{1000 * cost.single:.1f}",
            f"{1000 * cost.batch:.1f}",
        ]
        for result, cost in zip(results, costs, strict=True)
    ]
    figure = Figure(
        "tradeoff",
        f"Quality against cost, {results[0].metrics.images:,} images, 95 % intervals; "
        "equal costs side by side",
        "Metrics against parameters and time",
        plot_tradeoff,
        {
            "names": short_names(results),
            "groups": [len(result.candidate.branches) for result in results],
            "scores": _intervals(results),
            "costs": {
                "Parameters (millions)": [cost.parameters / 1e6 for cost in costs],
                "Time, one image (ms)": [1000 * cost.single for cost in costs],
                "Time per image, in batches (ms)": [1000 * cost.batch for cost in costs],
            },
        },
    )
    return Section("Metrics against parameters and time", [Table(header, rows, 2), how, figure])


def short_names(results: Sequence[Result]) -> list[str]:
    """Returns for each candidate the settings in which it differs, or else its name."""
    leaves = _varying_leaves(results)
    texts = [", ".join(_values(each, leaves)) for each in results]
    unique = len(set(texts)) == len(texts) and all(texts)
    return texts if unique else [each.candidate.name for each in results]


def _score_section(results: Sequence[Result]) -> Section:
    leaves = _varying_leaves(results)
    paired = any(result.against_first for result in results)
    header = ["Candidate", *(leaf.split(".")[-1] for leaf in leaves)]
    text_columns = len(header)
    header += [metric.title for metric in headline_metrics()]
    header += ["Against the first, points", "McNemar p", "Conclusion"] if paired else []
    rows = []
    for result in results:
        row = [result.candidate.name, *_values(result, leaves), *_scores(result.metrics)]
        if result.against_first:
            gain, test = result.against_first.accuracy, result.against_first.mcnemar
            row += [gain.points, f"{test.p_value:.3g}", gain.conclusion]
        elif paired:
            row += ["", "", "the first"]
        rows.append(row)
    note = f"Brackets: 95 % intervals. {METHOD}."
    if paired:
        note += (
            " Differences are those of accuracy, paired image by image. If the first candidate was "
            "selected as the best on these images, its metrics are optimistic: evaluate it on "
            "others."
        )
    elif len(results) > 1:
        note += " Each seed has images of its own, so nothing is compared image by image."
    scores = Figure(
        "scores",
        "Metrics of the candidates, with 95 % intervals",
        "Metrics of the candidates with 95 % intervals; the dashed line is the first candidate",
        plot_intervals,
        {"names": short_names(results), "scores": _intervals(results), "reference": 0},
    )
    histories = {
        name: result.candidate.epochs.values
        for name, result in zip(short_names(results), results, strict=True)
        if result.candidate.epochs.values
    }
    curves = Figure(
        "curves",
        "Accuracy and loss of each setting",
        "Accuracy and loss of each setting over the epochs",
        plot_histories,
        {"histories": histories},
    )
    title = f"Candidates on {results[0].metrics.images:,} images"
    figures = [scores, *([curves] if histories else [])]
    return Section(title, [Table(header, rows, text_columns), note, *figures])


def _seed_section(spreads: Sequence[Spread]) -> Section:
    rows = []
    for spread in spreads:
        first, *_, last = spread.candidates
        name = f"{label(first.settings['model.branches'])}: {first.name} to {last.name}"
        scores = [
            " +- ".join(f"{value:{metric.format}}" for value in spread.scores.get(metric.name, ()))
            for metric in headline_metrics()
        ]
        rows.append([name, str(len(spread.candidates)), *scores])
    header = ["Setting", "Seeds", *(metric.title for metric in headline_metrics())]
    note = "Mean +- standard deviation of runs that differ only in their seed."
    return Section("Over seeds", [Table(header, rows), note])


def _gain_section(gains: Sequence[Gain]) -> Section:
    header = ["Fused", "Accuracy", "Best part", "Its accuracy", "Gain over it, points"]
    header += ["Conclusion", "Average of parts", "Gain over it, points", "Conclusion"]
    rows = []
    for gain in gains:
        over_best, over_average = gain.over_best.accuracy, gain.over_average
        candidate, best = gain.result.candidate, gain.best
        row = [
            f"{label(candidate.settings['model.branches'])} ({candidate.name})",
            f"{gain.result.metrics.accuracy:.2%}",
            label(best.candidate.settings["model.branches"]),
            f"{best.metrics.accuracy:.2%}",
            over_best.points,
            over_best.conclusion,
        ]
        if over_average is None:
            row += ["", "", ""]
        else:
            difference = over_average.accuracy
            row += [f"{gain.average:.2%}", difference.points, difference.conclusion]
        rows.append(row)
    note = (
        "Accuracy against the best single part, and against the mean of the parts' probabilities, "
        "on the same images; 95 % intervals, paired."
    )
    return Section("Gain of fusion", [Table(header, rows), note])


def _class_section(results: Sequence[Result]) -> Section:
    header = ["Precision / recall / F1", *results[0].predictions.classes, "Accuracy"]
    rows = []
    for name, result in zip(short_names(results), results, strict=True):
        rates = [
            f"{scores.precision:.2f} / {scores.recall:.2f} / {scores.f1:.2f}"
            for scores in result.metrics.per_class
        ]
        rows.append([name, *rates, f"{result.metrics.accuracy:.3f}"])
    published = published_rows(results)
    note = "The study calls its classes 001 to 003 and does not say which is which."
    return Section("Classes", [Table(header, [*rows, *published]), *([note] if published else [])])


def _scores(metrics: Metrics) -> list[str]:
    """Returns each headline metric with its interval."""
    return [
        " ".join(metric.show(metrics.scores.get(metric.name))).strip()
        for metric in headline_metrics()
    ]


def _intervals(results: Sequence[Result]) -> dict[str, list[tuple[float, float, float]]]:
    """Returns the title of each headline metric to value, lower and upper end per candidate."""
    intervals = {}
    for metric in headline_metrics():
        scores = [result.metrics.scores.get(metric.name) for result in results]
        found = [s.interval.around(s.value) for s in scores if s and s.interval]
        if len(found) == len(results):
            intervals[metric.title] = found
    return intervals


def _varying_leaves(results: Sequence[Result]) -> list[str]:
    settings = [result.candidate.settings for result in results]
    paths = list(dict.fromkeys(path for each in settings for path in each))
    fused = any(result.candidate.fusion is not None for result in results)
    plain = [r.candidate.settings for r in results if r.candidate.fusion is None]
    varying = [path for path in paths if len({str(each.get(path)) for each in plain}) > 1]
    if fused and "model.branches" not in varying:
        varying.insert(0, "model.branches")
    return varying


def _values(result: Result, leaves: Sequence[str]) -> list[str]:
    settings = result.candidate.settings
    return [label(settings[leaf]) if leaf in settings else "" for leaf in leaves]
