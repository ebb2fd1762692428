"""A picture of how many layers a matcher runs on pairs of images, against how much these have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.evaluation.evaluate_pairs import PRECISION_THRESHOLDS, PairOutcome, PairSetEvaluation
from feature_matcher_ros.evaluation.plot_style import INK, RUN_COLORS, plot_style, write_plot

_BINS = (0.0, 5.0, 10.0, 20.0, 30.0, 40.0, 100.0)  # percent of the points that images have in common
_SPREAD = 0.12  # layers, by which dots are moved apart


def plot_layers(evaluations: Sequence[PairSetEvaluation], path: Path) -> None:
    """Draw a dot for each pair, and means over pairs that have about as much in common.

    Raises:
        ConfigError: the matcher runs no layers, or no pair has a true translation to judge matches by.
        OutputError: the file cannot be written, or matplotlib knows no such format.
    """
    places = [_places(evaluation) for evaluation in evaluations]
    if not any(len(place) for place in places):
        raise ConfigError(
            f"{evaluations[0].matcher} on these pairs has no layers to draw: choose a matcher with layers, and pairs "
            "between which the camera moves."
        )
    with plot_style():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for evaluation, place, color in zip(evaluations, places, RUN_COLORS * len(places), strict=False):
            _draw_set(axes, evaluation.name, place, color)
        _draw_means(axes, np.concatenate(places))
        axes.set(
            xlabel="points of an image with a correct match in the other, %",
            ylabel="layers run",
            title=f"{evaluations[0].matcher}: a dot for each pair of images, and means",
        )
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0.5)
        axes.legend(fontsize=8)
        write_plot(figure, path)


def common_share(outcome: PairOutcome) -> float | None:
    """Share of the points that have a match on their true epipolar line; None where that cannot be told."""
    if outcome.precision is None or outcome.num_points == 0.0:
        return None
    return outcome.precision[min(PRECISION_THRESHOLDS)] * outcome.num_matches / outcome.num_points


def _places(evaluation: PairSetEvaluation) -> NDArray[np.float64]:
    """What the pairs have in common in percent, and the layers run on them, (N, 2)."""
    known = ((common_share(outcome), outcome.layers_run) for outcome in evaluation.pairs)
    rows = [(100.0 * share, float(layers)) for share, layers in known if share is not None and layers is not None]
    return np.array(rows, np.float64).reshape(-1, 2)


def _draw_set(axes: Axes, name: str, places: NDArray[np.float64], color: str) -> None:
    moved = np.random.default_rng(0).uniform(-_SPREAD, _SPREAD, len(places))
    axes.plot(places[:, 0], places[:, 1] + moved, "o", color=color, alpha=0.6, markersize=4, label=name)


def _draw_means(axes: Axes, places: NDArray[np.float64]) -> None:
    numbers = np.digitize(places[:, 0], _BINS)
    means = [places[numbers == number].mean(axis=0) for number in np.unique(numbers)]
    axes.plot(*np.transpose(means), "-", color=INK, label="mean")
