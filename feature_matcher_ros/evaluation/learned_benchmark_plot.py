"""The cost of a learned matcher against the number of keypoints, as a picture for a page or a paper."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from feature_matcher_ros.evaluation.learned_benchmark import LearnedBenchmark, LearnedRow
from feature_matcher_ros.evaluation.learned_contenders import ADAPTIVE, ALL_LAYERS, COMPILED, ONNX, TORCH
from feature_matcher_ros.evaluation.plot_style import BLUE, GREEN, ORANGE, plot_style, write_plot

# Every runtime with all layers, and what adaptivity makes of the one that robots use.
_CURVES = {
    (TORCH, ALL_LAYERS): ("PyTorch, eager", ORANGE, "-"),
    (COMPILED, ALL_LAYERS): ("PyTorch, compiled", GREEN, "-"),
    (ONNX, ALL_LAYERS): ("ONNX Runtime", BLUE, "-"),
    (ONNX, ADAPTIVE): ("ONNX Runtime, adaptive", BLUE, "--"),
}
_TICKS_MS = [factor * 10**power for power in range(6) for factor in (1, 2, 5)]


def plot_learned_benchmark(benchmark: LearnedBenchmark, path: Path) -> None:
    """Write a picture in the format that the ending of its name asks for.

    Raises:
        OutputError: the file cannot be written, or matplotlib knows no such format.
    """
    with plot_style():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for (runtime, mode), style in _CURVES.items():
            _draw([row for row in benchmark.rows if (row.runtime, row.mode) == (runtime, mode)], *style, axes)
        axes.set(xscale="log", yscale="log", xlabel="keypoints of an image", ylabel="ms for a pair")
        axes.set_title(f"{benchmark.network}, {benchmark.num_threads} threads")
        sizes = sorted({round(row.num_points) for row in benchmark.rows})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.yaxis.set_major_locator(FixedLocator(_TICKS_MS))
        axes.yaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
        axes.legend(fontsize=8)
        write_plot(figure, path)


def _draw(rows: list[LearnedRow], label: str, color: str, line: str, axes: Axes) -> None:
    if rows:
        points, times = [row.num_points for row in rows], [row.median_ms for row in rows]
        axes.plot(points, times, line, color=color, marker="o", markersize=3.5, label=label)
