"""Several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation import report_page as html
from feature_matcher_ros.evaluation.evaluate import RunEvaluation, evaluate_run
from feature_matcher_ros.evaluation.json_text import to_json
from feature_matcher_ros.evaluation.plot_style import GREY, RUN_COLORS, Plot, new_figure, plot_style, to_svg
from feature_matcher_ros.evaluation.report_plots import draw_paths
from feature_matcher_ros.evaluation.summary import ABSENT, summary_rows


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Runs in the order they were given, each with a name of its own."""

    names: tuple[str, ...]
    evaluations: tuple[RunEvaluation, ...]


def compare_runs(runs: Sequence[Path], output: Path, ground_truth: Path | None = None) -> Comparison:
    """Evaluate runs and write ``comparison.html`` and ``comparison.json`` into ``output``.

    Raises:
        SourceError: a folder is no run, there are fewer than two, or the truth given fits none.
        OutputError: a file cannot be written.
    """
    if len(runs) < 2:
        raise SourceError(f"{len(runs)} run cannot be compared: give two or more run folders.")
    evaluations = tuple(evaluate_run(run, ground_truth) for run in runs)
    comparison = Comparison(_distinct_names(runs), evaluations)
    html.write_text(output / "comparison.json", to_json(comparison))
    html.write_text(output / "comparison.html", render_comparison(comparison))
    return comparison


def comparison_table(comparison: Comparison) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows: what is measured, and a column for every run."""
    columns = [dict(summary_rows(evaluation)) for evaluation in comparison.evaluations]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    rows = [(label, *(column.get(label, ABSENT) for column in columns)) for label in labels]
    return ["", *comparison.names], rows


def render_comparison(comparison: Comparison) -> str:
    """The page as text."""
    header, rows = comparison_table(comparison)
    differences = _differences(comparison)
    body = [
        html.section("Numbers", html.table(header, rows)),
        html.section("Parameters that differ", html.table(["parameter", *comparison.names], differences))
        if differences
        else "",
        _remarks(comparison),
        html.section("Trajectories", html.figure(_plot_trajectories(comparison))),
        html.section(
            "Distributions",
            html.figure(_plot_distributions(comparison)),
            note="Share of the pairs, or frames, whose value is below the one on the horizontal axis.",
        ),
    ]
    return html.page("Comparison of runs", " · ".join(comparison.names), body)


def _distinct_names(runs: Sequence[Path]) -> tuple[str, ...]:
    """The folder names, or as much of the paths as it takes to tell them apart."""
    parts = [run.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{run.name} ({number})" for number, run in enumerate(runs, start=1))


def _differences(comparison: Comparison) -> list[tuple[str, ...]]:
    settings = []
    for evaluation in comparison.evaluations:
        run = evaluation.run
        settings.append({"source": run.source, "matcher": run.matcher, "modality": run.modality.value, **run.config})
    paths = dict.fromkeys(path for setting in settings for path in setting)
    rows = [(path, *(str(setting.get(path, ABSENT)) for setting in settings)) for path in paths]
    return [row for row in rows if len(set(row[1:])) > 1]


def _remarks(comparison: Comparison) -> str:
    named = zip(comparison.names, comparison.evaluations, strict=True)
    return html.remarks([f"{name}: {remark}" for name, evaluation in named for remark in evaluation.remarks])


def _colors(comparison: Comparison) -> list[str]:
    return [RUN_COLORS[number % len(RUN_COLORS)] for number in range(len(comparison.names))]


def _plot_trajectories(comparison: Comparison) -> Plot | None:
    """Aligned paths over their truth; None without truth, or where the runs are of different recordings."""
    if len({evaluation.run.source for evaluation in comparison.evaluations}) > 1:
        return None
    named = zip(comparison.names, comparison.evaluations, _colors(comparison), strict=True)
    aligned = [(name, evaluation.series.aligned, color) for name, evaluation, color in named]
    known = [(name, entry, color) for name, entry, color in aligned if entry is not None]
    if not known:
        return None
    paths = [(known[0][1].truth, GREY), *((entry.estimate, color) for _, entry, color in known)]
    with plot_style():
        figure = new_figure(4.3)
        top, side = figure.subplots(1, 2, width_ratios=(3, 2))
        draw_paths(top, side, paths, "m")
        svg = to_svg(figure, "comparison-trajectories")
    return Plot(svg, (("truth", GREY), *((name, color) for name, _, color in known)))


def _plot_distributions(comparison: Comparison) -> Plot:
    with plot_style():
        figure = new_figure(5.6)
        panels = figure.subplots(2, 2)
        for evaluation, color in zip(comparison.evaluations, _colors(comparison), strict=True):
            errors, rows = evaluation.series.pair_errors, evaluation.series.rows
            _draw_distribution(panels[0, 0], [error.rotation_deg for error in errors], color)
            _draw_distribution(panels[0, 1], [error.direction_deg for error in errors], color)
            _draw_distribution(panels[1, 0], [row.num_inliers for row in rows], color)
            _draw_distribution(panels[1, 1], [row.total_ms for row in rows if row.attempted], color)
        titles = ("Rotation error (deg)", "Direction error (deg)", "Inliers", "Time of a matched frame (ms)")
        for panel, title in zip(panels.flat, titles, strict=True):
            panel.set(title=title, ylim=(0, 102), xlim=(0, None), ylabel="%")
        svg = to_svg(figure, "comparison-distributions")
    return Plot(svg, tuple(zip(comparison.names, _colors(comparison), strict=True)))


def _draw_distribution(axes: Axes, values: Sequence[float | None], color: str) -> None:
    known = np.sort([value for value in values if value is not None])
    if len(known):
        axes.plot(
            np.insert(known, 0, known[0]), np.linspace(0.0, 100.0, len(known) + 1), color=color, drawstyle="steps-post"
        )
