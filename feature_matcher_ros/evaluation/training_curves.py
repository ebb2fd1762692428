"""How a network learned: loss, precision and recall of every layer over the steps of training, as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.evaluation.plot_style import RUN_COLORS, plot_style

_STAGE = "matching"
Line = Mapping[str, Any]


def draw_training_curves(metrics: Path, path: Path) -> None:
    """Draw what training wrote into ``metrics.jsonl``.

    Raises:
        SourceError: the file cannot be read.
        OutputError: the picture cannot be written.
    """
    with plot_style():
        figure = _figure(read_metrics(metrics))
        try:
            figure.savefig(path, dpi=120)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot write the picture {path} ({error}): choose a writable folder.") from error


def read_metrics(path: Path) -> list[Line]:
    """The reports of the first stage, without those behind a checkpoint from which the run then went on, or anew.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        lines = [*map(_parsed, path.read_text(encoding="utf-8").splitlines())]
    except (OSError, ValueError) as error:
        raise SourceError(f"the metrics {path} cannot be read ({error}): give the file that train wrote.") from error
    kept: list[Line] = []
    for line in lines:
        if line.get("stage") == _STAGE:
            while kept and kept[-1]["step"] >= line["step"]:
                kept.pop()
            kept.append(line)
    return kept


def _parsed(text: str) -> Line:
    """Nothing where a full disk left but a part of the line."""
    try:
        line: Line = json.loads(text)
    except ValueError:
        return {}
    return line


def _figure(lines: Sequence[Line]) -> Figure:
    figure = Figure(figsize=(10.0, 3.2), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 3)
    num_layers = max((len(line.get("recall", ())) for line in lines), default=0)  # losses of refinement may follow
    for place, name in zip(axes, ("losses", "precision", "recall"), strict=True):
        _curves(place, [line for line in lines if line.get(name)], name, num_layers)
    axes[0].set(title="loss while training", ylim=(0.0, None))
    axes[1].set(title="precision on held-back scenes")
    axes[2].set(title="recall on held-back scenes")
    axes[0].legend(fontsize=8)
    return figure


def _curves(axes: Axes, lines: Sequence[Line], name: str, num_layers: int) -> None:
    steps = [line["step"] for line in lines]
    for layer in range(num_layers if lines else 0):
        color = RUN_COLORS[layer % len(RUN_COLORS)]
        axes.plot(steps, [line[name][layer] for line in lines], color=color, linewidth=1.2, label=f"layer {layer + 1}")
    axes.set(xlabel="step")
