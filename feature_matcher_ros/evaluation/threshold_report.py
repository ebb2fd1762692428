"""What a calibration of thresholds says: a file of parameters, tables, a plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from feature_matcher_ros.config import MatcherConfig
from feature_matcher_ros.errors import OutputError
from feature_matcher_ros.evaluation.plot_style import BLUE, MUTED, ORANGE, plot_style, write_plot
from feature_matcher_ros.evaluation.threshold_calibration import Calibration, Trial
from feature_matcher_ros.matchers.lightglue_graphs import METHOD as LIGHTGLUE
from feature_matcher_ros.parameter_file import ROS_KEY
from feature_matcher_ros.parameter_values import Value, yaml_line


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the parameters of the matcher to a file for ``--config`` or the node.

    Raises:
        OutputError: the file cannot be written; one that was there is left as it is.
    """
    lines = [f"# {line}" for line in _remarks(calibration)]
    lines += ["/**:", f"  {ROS_KEY}:", "    matcher:"]
    lines += [f"      {yaml_line(name, value)}" for name, value in _parameters(calibration).items()]
    written = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): choose another --output.") from error


def calibration_table(calibration: Calibration) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows: what is measured, and a column for each of the rules."""
    trials = {
        "all layers": calibration.all_layers,
        "schedule of the paper": calibration.paper,
        "calibrated": calibration.calibrated,
    }
    columns = [_column(trial, calibration.all_layers, calibration.num_layers) for trial in trials.values()]
    return ["", *trials], [(label, *(column[label] for column in columns)) for label in columns[0]]


def layer_table(calibration: Calibration) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows: a layer each."""
    header = [
        "after layer",
        "threshold of the paper",
        "threshold",
        "matchability",
        "pairs that stop",
        "agreement if all did",
    ]
    rows: list[tuple[str, ...]] = [
        (
            str(layer.layer),
            f"{layer.paper_threshold:.3f}",
            f"{layer.threshold:.5f}",
            f"{layer.matchability_threshold:.2f}",
            f"{100 * layer.stopped_share:.0f} %",
            f"{100 * layer.agreement:.1f} %",
        )
        for layer in calibration.layers
    ]
    return header, rows


def _column(trial: Trial, all_layers: Trial, num_layers: int) -> Mapping[str, str]:
    saved = 1.0 - trial.match_ms / all_layers.match_ms
    return {
        "agreement with all layers, mean": f"{100 * trial.agreement:.1f} %",
        "in the worst 5 % of the pairs, at most": f"{100 * trial.worst_agreement:.1f} %",
        f"layers run of {num_layers}, mean": f"{trial.layers_run:.2f}",
        "points left in the last of them, mean": f"{100 * trial.kept_share:.0f} %",
        "match, mean": f"{trial.match_ms:.1f} ms",
        "time saved": f"{100 * saved:.0f} %",
    }


def _parameters(calibration: Calibration) -> dict[str, Value]:
    matcher = calibration.config.matcher
    schedule: dict[str, Value] = {"confidence_thresholds": calibration.schedule.thresholds}
    if calibration.method == LIGHTGLUE:
        schedule["width_confidence"] = MatcherConfig().width_confidence
        schedule["matchability_thresholds"] = calibration.schedule.matchability_thresholds
    return {
        "name": calibration.method,
        "graphs": matcher.graphs and str(Path(matcher.graphs).absolute()),  # a node is launched from elsewhere
        "depth_confidence": matcher.depth_confidence,
        **schedule,
    }


def plot_calibration(calibration: Calibration, path: Path) -> None:
    """Draw agreement against layers run, in the format that the ending of the file's name asks for.

    Raises:
        OutputError: the file cannot be written, or matplotlib knows no such format.
    """
    with plot_style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained", facecolor="white")
        _draw(calibration, figure.subplots())
        write_plot(figure, path)


def _draw(calibration: Calibration, axes: Any) -> None:
    places = [(trial.layers_run, 100 * trial.agreement) for _, trial in calibration.curve]
    axes.plot(*zip(*places, strict=True), "-o", color=BLUE, markersize=4, label="calibrated, by wanted agreement")
    for trial, style, label in (
        (calibration.calibrated, {"marker": "o", "color": BLUE, "markersize": 9}, "as written to the file"),
        (calibration.paper, {"marker": "s", "color": ORANGE, "markersize": 7}, "schedule of the paper"),
        (calibration.all_layers, {"marker": "D", "color": MUTED, "fillstyle": "none", "markersize": 9}, "all layers"),
    ):
        axes.plot(trial.layers_run, 100 * trial.agreement, linestyle="none", label=label, **style)
    axes.set(
        xlim=(0.8, calibration.num_layers + 0.2),
        xlabel=f"layers run of {calibration.num_layers}, mean",
        ylabel="agreement with all layers, mean, %",
        title=f"{calibration.num_tried_on} pairs of {calibration.source.name} that had no part in choosing",
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.15)
    for (layers, kept), wanted in _labels(places, [level for level, _ in calibration.curve], axes.get_ylim()):
        axes.annotate(
            f"{wanted} %", (layers, kept), (-9, -2), textcoords="offset points", ha="right", fontsize=8, color=BLUE
        )
    axes.legend(fontsize=8)


def _labels(
    places: Sequence[tuple[float, float]], levels: Sequence[float], y_limits: tuple[float, float]
) -> Iterator[tuple[tuple[float, float], str]]:
    """A place and a text for each group of points whose own texts would lie on one another."""
    height = y_limits[1] - y_limits[0]
    group: list[int] = []
    for number, (x, _) in enumerate(places):
        group.append(number)
        following = places[number + 1] if number + 1 < len(places) else (math.inf, math.inf)
        if abs(following[0] - x) > 0.5 or abs(following[1] - places[group[0]][1]) > 0.04 * height:
            first, last = (f"{100 * levels[index]:g}" for index in (group[0], group[-1]))
            yield places[group[len(group) // 2]], first if first == last else f"{first} to {last}"
            group = []


def _remarks(calibration: Calibration) -> list[str]:
    """What a reader of the file should know."""
    trial, extractor = calibration.calibrated, calibration.config.extractor
    inputs = f"{extractor.name} with at most {extractor.max_keypoints} points: calibrate again for other points."
    if calibration.max_image_px is not None:
        inputs = f"images of at most {calibration.max_image_px} px: calibrate again for others."
    return [
        f"Thresholds of {calibration.method}, chosen by feature-matcher calibrate on {calibration.source.name!r}",
        f"for {_wish(calibration)} with what all {calibration.num_layers} layers would find.",
        f"Chosen on {calibration.num_chosen_on} pairs of images. On {calibration.num_tried_on} others they kept "
        f"{100 * trial.agreement:.1f} % and ran {trial.layers_run:.2f} layers;",
        f"the schedule of the paper kept {100 * calibration.paper.agreement:.1f} % and ran "
        f"{calibration.paper.layers_run:.2f}.",
        f"For {inputs}",
    ]


def _wish(calibration: Calibration) -> str:
    if calibration.budget_ms is None:
        return f"a wanted agreement of {100 * calibration.wanted:g} %"
    return f"the best agreement within {calibration.budget_ms:g} ms a pair, {100 * calibration.wanted:g} %,"
