"""What training reports while it runs, and the files it reports to."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_matcher_ros.training.match_counts import MatchCounts

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where training stands."""

    stage: str
    step: int
    steps: int
    losses: tuple[float, ...]  # of each layer, then of refinement; means since the last report, none before a step
    pairs_per_s: float
    layers: tuple[MatchCounts, ...] = ()  # on the validation pairs, where they were just matched

    @property
    def loss(self) -> float:
        """Mean of all; NaN before the first step."""
        return sum(self.losses) / len(self.losses) if self.losses else math.nan


ProgressCallback = Callable[[TrainingProgress], None]


class MetricsLog:
    """Appends every report to ``metrics.jsonl``, and to TensorBoard where that is installed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"
        self._board = _tensorboard(folder)

    def write(self, progress: TrainingProgress) -> None:
        """Append one line; a full disk costs the line and not the training."""
        line = {"stage": progress.stage, "step": progress.step, "losses": [round(loss, 5) for loss in progress.losses]}
        if progress.layers:
            line["precision"] = [round(layer.precision, 4) for layer in progress.layers]
            line["recall"] = [round(layer.recall, 4) for layer in progress.layers]
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._to_board(progress)
        except OSError as error:
            _LOG.warning("cannot write to %s: %s", self._path.parent, error)

    def _to_board(self, progress: TrainingProgress) -> None:
        if self._board is None:
            return
        for number, loss in enumerate(progress.losses, start=1):
            self._board.add_scalar(f"{progress.stage}/loss_layer{number}", loss, progress.step)
        for number, layer in enumerate(progress.layers, start=1):
            self._board.add_scalar(f"{progress.stage}/precision_layer{number}", layer.precision, progress.step)
            self._board.add_scalar(f"{progress.stage}/recall_layer{number}", layer.recall, progress.step)
        self._board.flush()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))
