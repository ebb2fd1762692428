"""One pair of images on its way through a LightGlue network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.matchers.adaptive import Probabilities
from feature_matcher_ros.matchers.lightglue_graphs import FOLLOWING, HEAD, Stage, stage_name
from feature_matcher_ros.runtimes.runtime import Runtime, Tensor
from feature_matcher_ros.timing import StageTimer

Indices = NDArray[np.int32]
_ROUNDING = 1e-5  # a runtime may compute the likelihoods of rows and of columns in two ways


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """What the network takes of one image."""

    descriptors: NDArray[np.float32]  # (N, descriptor_size)
    positions: NDArray[np.float32]  # (N, 2 or 4)


class LightGluePass:
    """Carries the tensors from graph to graph, and remembers which point each of their rows belongs to.

    The rows of the tensors are the points that entered the last stage; ``keep_only`` chooses among them, and the
    next graph takes them out.
    """

    def __init__(self, input0: NetworkInput, input1: NetworkInput) -> None:
        self._inputs = (input0, input1)
        self.num_points = len(input0.positions) + len(input1.positions)
        self._points0, self._points1 = _range(len(input0.positions)), _range(len(input1.positions))
        self._rows0, self._rows1 = self._all_rows()
        self._certainty: Probabilities = np.zeros((0, 2), np.float32)
        self._tensors: dict[str, Tensor] = {}
        self._history: list[tuple[int, int]] = []
        self._assigned: tuple[Indices, NDArray[np.float32]] | None = None
        self._timer = StageTimer()

    @property
    def kept(self) -> tuple[int, int]:
        """Points of either image that are still there."""
        return len(self._points0), len(self._points1)

    @property
    def num_kept(self) -> int:
        return sum(self.kept)

    @property
    def in_both_images(self) -> bool:
        """Whether each image has a point left."""
        return min(self.kept) > 0

    @property
    def points_per_stage(self) -> Indices:
        """(stages run, 2): the points that entered each stage."""
        return np.array(self._history, np.int32).reshape(-1, 2)

    @property
    def stages_ms(self) -> Mapping[str, float]:
        return self._timer.stages_ms

    @property
    def elapsed_ms(self) -> float:
        return sum(self._timer.stages_ms.values())

    @property
    def confidence(self) -> Probabilities:
        """Confidence (kept0 + kept1,) of all points that went through the last stage."""
        return self._certainty[:, 0]

    @property
    def matchability(self) -> Probabilities:
        """Matchability (kept0 + kept1,) of the same points."""
        return self._certainty[:, 1]

    @property
    def by_image(self) -> tuple[tuple[Probabilities, Probabilities], tuple[Probabilities, Probabilities]]:
        """(confidence, matchability) of the points of image 0, and those of image 1."""
        split = len(self._points0)
        (confidence0, confidence1), (matchability0, matchability1) = (
            np.split(values, [split]) for values in (self.confidence, self.matchability)
        )
        return (confidence0, matchability0), (confidence1, matchability1)

    def embed(self, graph: Runtime) -> None:
        """Turn descriptors and positions into states and angles."""
        with self._timer.stage("embed"):
            descriptors = np.concatenate([part.descriptors for part in self._inputs])
            positions = np.concatenate([part.positions for part in self._inputs])
            self._tensors = graph.run({"descriptors": descriptors, "positions": positions})

    def run(self, stage: Stage) -> float:
        """Run the layers of a stage and return the milliseconds that it took."""
        self._history.append(self.kept)
        name = stage_name(stage.layers_done)
        with self._timer.stage(name):
            found = stage.layers.run({**self._tensors, "rows0": self._rows0, "rows1": self._rows1})
            self._rows0, self._rows1 = self._all_rows()
            if "certainty" in found:  # the last stage has none
                self._certainty = np.asarray(found.pop("certainty"))  # (kept0 + kept1, 2)
            self._tensors = {tensor.removeprefix(FOLLOWING): value for tensor, value in found.items()}
        return self._timer.stages_ms[name]

    def keep_only(self, keep: NDArray[np.bool_]) -> None:
        """Drop the points (kept0 + kept1,) for which this is false."""
        if keep.all():
            return
        keep0, keep1 = np.split(keep, [len(self._points0)])
        self._rows0, self._rows1 = self._rows0[keep0], self._rows1[keep1]
        self._points0, self._points1 = self._points0[keep0], self._points1[keep1]

    def assign(self, head: Runtime) -> float:
        """Read the matches off the states and return the milliseconds that it took."""
        with self._timer.stage(HEAD):
            found = head.run({"state": self._tensors["state"], "rows0": self._rows0, "rows1": self._rows1})
            best0, log0, log1 = (np.asarray(found[name]) for name in ("best0", "log_scores0", "log_scores1"))
            mutual, scores = mutually_best(best0, log0, log1)
            self._assigned = np.column_stack((self._points0[mutual], self._points1[best0[mutual]])), scores
        return self._timer.stages_ms[HEAD]

    def matches(self, min_score: float) -> tuple[Indices, NDArray[np.float32]]:
        """Keypoint numbers (M, 2) and scores (M,) of the mutually best pairs above a score; none before ``assign``."""
        if self._assigned is None:
            return np.zeros((0, 2), np.int32), np.zeros(0, np.float32)
        pairs, scores = self._assigned
        good = scores > min_score
        return pairs[good], scores[good]

    def _all_rows(self) -> tuple[Indices, Indices]:
        rows = _range(self.num_kept)
        return rows[: len(self._points0)], rows[len(self._points0) :]


def mutually_best(
    best0: NDArray[np.int64], log_scores0: NDArray[np.float32], log_scores1: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Points (M,) of image 0 that are likeliest for the likeliest of image 1, in ascending order, and how likely.

    ``best0`` and ``log_scores0`` (N0,) are the likeliest partner of every point of image 0 and the logarithm of how
    likely it is, ``log_scores1`` (N1,) likewise of image 1.
    """
    mutual = _best_of_each(best0, log_scores0, np.flatnonzero(log_scores0 >= log_scores1[best0] - _ROUNDING))
    return mutual, np.minimum(np.exp(log_scores0[mutual]), np.float32(1.0))


def _best_of_each(
    partners: NDArray[np.int64], log_scores: NDArray[np.float32], points: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The points that share their partner with no likelier point, and with no earlier one that is as likely."""
    by_score = points[np.argsort(-log_scores[points], kind="stable")]
    _, first = np.unique(partners[by_score], return_index=True)
    return np.sort(by_score[first])


def _range(length: int) -> Indices:
    return np.arange(length, dtype=np.int32)
