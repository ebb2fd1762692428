"""The cost of a learned matcher against the number of keypoints, as a picture for a page or a paper."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from feature_matcher_ros.errors import OutputError
from feature_matcher_ros.evaluation.learned_benchmark import LearnedBenchmark
from feature_matcher_ros.evaluation.learned_contenders import COMPILED, MODES, ONNX, TORCH
from feature_matcher_ros.evaluation.plot_style import BLUE, GREEN, ORANGE, plot_style

_COLORS = {ONNX: BLUE, TORCH: ORANGE, COMPILED: GREEN}
_LINES = dict(zip(MODES, ("-", ":", "--"), strict=True))


def plot_learned_benchmark(benchmark: LearnedBenchmark, path: Path) -> None:
    """Write a picture in the format that the ending of its name asks for.

    Raises:
        OutputError: the file cannot be written, or matplotlib knows no such format.
    """
    with plot_style():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for runtime, mode in dict.fromkeys((row.runtime, row.mode) for row in benchmark.rows):
            rows = [row for row in benchmark.rows if (row.runtime, row.mode) == (runtime, mode)]
            axes.plot(
                [row.num_points for row in rows],
                [row.median_ms for row in rows],
                _LINES[mode],
                color=_COLORS[runtime],
                marker="o",
                markersize=3.5,
                label=f"{runtime}, {mode}",
            )
        axes.set(
            xscale="log", yscale="log", xlabel="keypoints of an image", ylabel="ms for a pair", title=benchmark.network
        )
        sizes = sorted({round(row.num_points) for row in benchmark.rows})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.legend(fontsize=8)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot write the plot {path} ({error}): choose another --plot.") from error
