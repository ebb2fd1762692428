"""Matching without detected points: LoFTR (arXiv 2104.00680) and Efficient LoFTR (arXiv 2403.04765)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Features, Image, Matches, Pixels, StopReason
from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.extractors.selection import inside_image, inside_mask, require_mask_of
from feature_matcher_ros.images import image_size, shrink_to_fit, to_grey, to_original_pixels
from feature_matcher_ros.matchers.adaptive import StopRule, paper_thresholds, require_fitting_thresholds
from feature_matcher_ros.matchers.dense_graphs import FOLLOWING, DenseGraphs
from feature_matcher_ros.models.dense_config import CELL_PX
from feature_matcher_ros.runtimes.runtime import Tensor
from feature_matcher_ros.timing import StageTimer

_BORDER = 2  # cells along the edge of an image are not matched, as the networks' authors do
_MIN_CONTRAST = 3  # grey levels between the darkest and the brightest pixel; an image with fewer shows nothing

# The published thresholds are 20 and 25 for bare similarities where they are 0.1 and 0.2 for probabilities. This
# logistic function takes the former to the latter.
_SLOPE = (np.log(0.2 / 0.8) - np.log(0.1 / 0.9)) / 5.0
_MIDDLE = 25.0 - np.log(0.2 / 0.8) / _SLOPE


@dataclass(frozen=True, slots=True)
class DenseRules:
    """What to accept, and when to stop."""

    min_score: float = 0.2
    max_matches: int = 2048  # the best ones
    max_image_px: int = 0  # an image whose longer side exceeds this is shrunk; 0: the size that suits the network
    stop: StopRule = field(default_factory=StopRule)
    thresholds: tuple[float, ...] = ()  # confidence of a final cell, by round; none: those that come with the network


@dataclass(frozen=True, slots=True, eq=False)
class DenseFeatures(Features):
    """What a backbone computes of an image; the keypoints are the places of the cells that may be matched."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    cells: NDArray[np.float32] = field(default_factory=lambda: np.zeros((1, 1, 0, 0), np.float32))  # 1 with content
    content_size: tuple[int, int] = (0, 0)  # (width, height) of the image as the network saw it, without the padding
    mask: Image | None = None  # (H, W), of the original image

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells with content."""
        return -(-self.content_size[1] // CELL_PX), -(-self.content_size[0] // CELL_PX)


@dataclass(frozen=True, slots=True, eq=False)
class CellMatches:
    """Matching cells of a pair of images, before the points in them are located."""

    cell0: NDArray[np.int64]  # (M,), numbered row by row, in ascending order
    cell1: NDArray[np.int64]  # (M,)
    scores: NDArray[np.float32]  # (M,)
    states: Mapping[str, Tensor]  # of both images, after the last round that was run
    rounds_run: int
    stop_reason: StopReason


class DetectorFree:
    """Pairs cells of 8x8 pixels of both images, then finds the matching points in them."""

    def __init__(self, graphs: DenseGraphs, rules: DenseRules | None = None) -> None:
        """Take an opened network.

        Raises:
            MatcherError: the number of thresholds is not that of the rounds.
        """
        self._graphs = graphs
        self.follow(rules or DenseRules())

    def follow(self, rules: DenseRules) -> None:
        """Take other rules from the next pair on.

        Raises:
            MatcherError: the number of thresholds is not that of the rounds; the rules stay as they were.
        """
        rounds = self._graphs.config.rounds
        thresholds = rules.thresholds or self._graphs.tuning.confidence_thresholds or paper_thresholds(rounds)
        require_fitting_thresholds(thresholds, rounds)
        self._rules, self._thresholds = rules, thresholds

    @property
    def name(self) -> str:
        return self._graphs.config.method

    @property
    def graphs(self) -> DenseGraphs:
        return self._graphs

    @property
    def max_image_px(self) -> int:
        """An image whose longer side exceeds this is shrunk."""
        return self._rules.max_image_px or self._graphs.tuning.max_image_px

    @property
    def rules(self) -> DenseRules:
        return self._rules

    def extract(self, image: Image, mask: Image | None = None) -> DenseFeatures:
        """Features of an (H, W) grey or (H, W, 3) BGR image; no matches where the mask is 0.

        Raises:
            MatcherError: the mask is not of the size of the image, or the network returns NaN or infinity.
        """
        require_mask_of(image, mask)
        grey = shrink_to_fit(to_grey(image), self.max_image_px)
        pixels, cells = _padded(grey, self._graphs.config.multiple)
        tensors = self._graphs.backbone.run({"image": pixels, "cells": cells})
        if not np.isfinite(np.asarray(tensors["state"])).all():
            raise MatcherError(
                "a feature of the backbone is NaN or infinite: the weights are damaged, export the network again."
            )
        places = np.zeros((0, 2), np.float32)
        if int(grey.max()) - int(grey.min()) >= _MIN_CONTRAST:
            places = to_original_pixels(_inner_places(image_size(grey)), image_size(grey), image_size(image))
            places = places if mask is None else places[inside_mask(places, mask)]
        return DenseFeatures(
            keypoints=places,
            keypoint_scores=np.ones(len(places), np.float32),
            descriptors=np.zeros((len(places), 0), np.float32),
            image_size=image_size(image),
            tensors=tensors,
            cells=cells,
            content_size=image_size(grey),
            mask=mask,
        )

    def match(self, features0: Features, features1: Features) -> Matches:
        """Correspondences in the order of the cells of image 0, row by row.

        Raises:
            MatcherError: the features are not those of a detector-free matcher.
        """
        pair = _dense(features0), _dense(features1)
        if len(features0) == 0 or len(features1) == 0:
            nothing = _matches(pair, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
            return replace(nothing, layers_run=0, stop_reason=StopReason.NOTHING_MATCHABLE)
        timer = StageTimer()
        cells = self.match_cells(*pair, timer)
        points = np.zeros((0, 4), np.float32)
        if len(cells.cell0):
            with timer.stage("fine"):
                points = self._fine(pair, cells)
        return replace(
            _matches(pair, points, cells.scores),
            layers_run=cells.rounds_run,
            stop_reason=cells.stop_reason,
            stages_ms=timer.stages_ms,
        )

    def match_cells(self, features0: DenseFeatures, features1: DenseFeatures, timer: StageTimer) -> CellMatches:
        """Run round after round until the matches are final, then pair the cells."""
        stop, reason = self._rules.stop, StopReason.LAST_LAYER
        states: Mapping[str, Tensor] = {}
        rounds_run = 0
        for following, confidence in self.rounds(features0, features1, timer):
            states, rounds_run = following, rounds_run + 1
            threshold = self._thresholds[rounds_run - 1]
            if confidence is not None and stop.is_satisfied(confidence, threshold, len(confidence)):
                reason = StopReason.CONFIDENT
                break
        with timer.stage("coarse"):
            found = self.compare((features0, features1), states)
        return CellMatches(*found, states, rounds_run, reason)

    def rounds(
        self, features0: DenseFeatures, features1: DenseFeatures, timer: StageTimer
    ) -> Iterator[tuple[Mapping[str, Tensor], NDArray[np.float32] | None]]:
        """The states after each round, and how final the cells with content (N0 + N1,) are; None without these."""
        pair = features0, features1
        given: dict[str, Tensor] = {f"state{side}": features.tensors["state"] for side, features in enumerate(pair)}
        given |= {f"cells{side}": features.cells for side, features in enumerate(pair)}
        has_content = np.concatenate([features.cells.ravel() for features in pair]) > 0
        for number, graph in enumerate(self._graphs.rounds, start=1):
            with timer.stage(f"round{number}"):
                found = graph.run(given)
            given |= {name: found[FOLLOWING + name] for name in ("state0", "state1")}
            if "confidence0" not in found:
                yield dict(given), None
                continue
            confidence = np.concatenate([np.ravel(np.asarray(found[f"confidence{side}"])) for side in (0, 1)])
            yield dict(given), confidence[has_content]

    def compare(
        self, pair: tuple[DenseFeatures, DenseFeatures], states: Mapping[str, Tensor]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Numbers of the cells (M,) of mutually best pairs that score enough, and their scores (M,)."""
        found = {name: np.asarray(value) for name, value in self._graphs.coarse.run(states).items()}
        best0, values0, values1 = found["best0"], found["values0"], found["values1"]
        scores = calibrated(values0) if self._graphs.is_optimized else np.exp(values0)
        inner0, inner1 = (_inner_cells(features).ravel() for features in pair)
        chosen = (values1[best0] == values0) & (scores >= self._rules.min_score) & (scores > 0)
        cell0 = np.flatnonzero(chosen & inner0 & inner1[best0])
        _, first = np.unique(best0[cell0], return_index=True)  # equally good ones: the first of them
        cell0 = cell0[np.sort(first)]
        if len(cell0) > self._rules.max_matches:
            order = np.argsort(-scores[cell0], kind="stable")[: self._rules.max_matches]
            cell0 = cell0[np.sort(order)]
        return cell0, best0[cell0], scores[cell0].astype(np.float32)

    def _fine(
        self,
        pair: tuple[DenseFeatures, DenseFeatures],
        found_cells: CellMatches,
    ) -> NDArray[np.float32]:
        """Points (M, 4), x0, y0, x1, y1, of the images as the network saw them."""
        states, cell0, cell1 = found_cells.states, found_cells.cell0, found_cells.cell1
        given = {"state0": states["state0"], "state1": states["state1"], "cell0": cell0, "cell1": cell1}
        for side, features in enumerate(pair):
            given |= {f"{name}_{side}": features.tensors[name] for name in self._graphs.config.maps}
        found = self._graphs.fine.run(given)
        points = [
            cell_places(cells, features.cells.shape[3]) + np.asarray(found[f"offsets{side}"])
            for side, (features, cells) in enumerate(zip(pair, (cell0, cell1), strict=True))
        ]
        return np.hstack(points).astype(np.float32)


def calibrated(similarities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores in [0, 1] of bare similarities, comparable with probabilities."""
    exponent = np.clip(_SLOPE * (similarities - _MIDDLE), -80.0, 80.0)
    return (1.0 / (1.0 + np.exp(-exponent))).astype(np.float32)


def _matches(
    pair: tuple[DenseFeatures, DenseFeatures], points: NDArray[np.float32], scores: NDArray[np.float32]
) -> Matches:
    """Matches in pixels of the original images, without those outside of these or where a mask is 0."""
    points0, points1 = (
        to_original_pixels(part, features.content_size, features.image_size)
        for part, features in zip((points[:, :2], points[:, 2:]), pair, strict=True)
    )
    seen0, seen1 = (
        inside_image(part, features.image_size, features.mask)
        for part, features in zip((points0, points1), pair, strict=True)
    )
    seen = seen0 & seen1
    return Matches(points0[seen], points1[seen], scores[seen])


def _dense(features: Features) -> DenseFeatures:
    if not isinstance(features, DenseFeatures):
        raise MatcherError(
            f"features of type {type(features).__name__} cannot be matched without keypoints: "
            "extract both images with the matcher that is to match them."
        )
    return features


def _padded(grey: Image, multiple: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The image (1, 1, H, W) in [0, 1] with black below and right of it, and its cells, 1 where there is content."""
    width, height = image_size(grey)
    padded = cv2.copyMakeBorder(grey, 0, -height % multiple, 0, -width % multiple, cv2.BORDER_CONSTANT, value=0)
    cells = np.zeros((1, 1, padded.shape[0] // CELL_PX, padded.shape[1] // CELL_PX), np.float32)
    cells[:, :, : -(-height // CELL_PX), : -(-width // CELL_PX)] = 1.0
    return np.asarray(padded, np.float32)[None, None] / np.float32(255.0), cells


def _inner_places(size: tuple[int, int]) -> Pixels:
    """Places (N, 2) of the cells of an image (width, height) that may be matched."""
    columns, rows = (np.arange(_BORDER, -(-length // CELL_PX) - _BORDER) * CELL_PX for length in size)
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float32)


def _inner_cells(features: DenseFeatures) -> NDArray[np.bool_]:
    """Which cells (h, w) may be matched."""
    rows, columns = features.grid
    inner = np.zeros(features.cells.shape[2:], np.bool_)
    inner[_BORDER : max(_BORDER, rows - _BORDER), _BORDER : max(_BORDER, columns - _BORDER)] = True
    return inner


def cell_places(cells: NDArray[np.integer], columns: int) -> NDArray[np.float32]:
    """Pixels (M, 2) that cells (M,), numbered row by row, stand for."""
    return np.column_stack((cells % columns, cells // columns)).astype(np.float32) * CELL_PX
