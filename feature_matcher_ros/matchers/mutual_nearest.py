"""Mutual nearest neighbours with a ratio test: the hand-designed matcher that others must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.config import MatcherConfig
from feature_matcher_ros.datatypes import Features, Image, Matches
from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.extractors.extractor import Extractor
from feature_matcher_ros.matchers.matcher import require_finite

Descriptors = NDArray[np.float32] | NDArray[np.uint8]
Scores = NDArray[np.float32]

_REMOVED = np.float32(-np.inf)
_UNIT_LENGTH_TOLERANCE = 0.01


class MutualNearest:
    """Pairs two points if each is the other's nearest and both their next nearest are clearly farther.

    Distances are Euclidean for float descriptors, which must have unit length, and Hamming for binary
    ones. The ratio test (Lowe 2004, section 7.1) divides the distance of a pair by the distance of the
    nearest rival of either point. The score of a match is one minus this ratio: 1 is an exact and
    unrivalled match, 0 one that is as good as another. Where there is no rival, an image having a
    single point, the greatest possible distance stands in for its distance.
    """

    def __init__(self, extractor: Extractor, config: MatcherConfig) -> None:
        self._extractor = extractor
        self.follow(config)

    def follow(self, config: MatcherConfig) -> None:
        """Take another ratio from the next pair on."""
        self._max_ratio = config.max_ratio

    @property
    def name(self) -> str:
        return "mutual_nearest"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return require_finite(self._extractor.extract(image, mask))

    def match(self, features0: Features, features1: Features) -> Matches:
        """Correspondences in the order of the keypoints of image 0.

        Raises:
            MatcherError: the descriptors are of different kinds, not finite, or not of unit length.
        """
        indices, ratios = _mutual_pairs(features0.descriptors, features1.descriptors)
        accepted = ratios <= self._max_ratio
        indices = indices[accepted]
        return Matches(
            points0=features0.keypoints[indices[:, 0]],
            points1=features1.keypoints[indices[:, 1]],
            scores=(1.0 - ratios[accepted]).astype(np.float32),
            indices=indices,
        )


def _mutual_pairs(descriptors0: Descriptors, descriptors1: Descriptors) -> tuple[NDArray[np.int32], Scores]:
    """Index pairs (M, 2) of mutual nearest neighbours, and for each its ratio (M,) in [0, 1]."""
    _require_comparable(descriptors0, descriptors1)
    if len(descriptors0) == 0 or len(descriptors1) == 0:
        return np.zeros((0, 2), dtype=np.int32), np.zeros(0, dtype=np.float32)
    similarity = _as_vectors(descriptors0) @ _as_vectors(descriptors1).T  # (N0, N1), larger is nearer
    nearest1 = similarity.argmax(axis=1)
    best = similarity[np.arange(len(nearest1)), nearest1]
    # Maxima along columns are fast, their positions are not: values are compared instead.
    index0 = np.flatnonzero(similarity.max(axis=0)[nearest1] == best)
    _, first = np.unique(nearest1[index0], return_index=True)  # equally near points: the first of them
    index0 = index0[np.sort(first)]
    index1 = nearest1[index0]
    # With each pair itself removed, the maxima of its row and column are its rivals.
    similarity[index0, index1] = _REMOVED
    rival = np.maximum(similarity.max(axis=1)[index0], similarity.max(axis=0)[index1])
    ratios = _ratios(best[index0], rival, descriptors0)
    return np.stack([index0, index1], axis=1).astype(np.int32), ratios


def _as_vectors(descriptors: Descriptors) -> NDArray[np.float32]:
    """Vectors whose scalar product orders pairs by nearness: unit vectors, or bits as -1 and 1."""
    if descriptors.dtype == np.uint8:
        return np.unpackbits(np.asarray(descriptors, dtype=np.uint8), axis=1).astype(np.float32) * 2.0 - 1.0
    return np.asarray(descriptors, dtype=np.float32)


def _ratios(best: Scores, rival: Scores, descriptors: Descriptors) -> Scores:
    """Distance to the nearest over distance to the rival; 1 where both are 0."""
    if descriptors.dtype == np.uint8:
        num_bits = np.float32(8 * descriptors.shape[1])
        nearest, farther = ((num_bits - np.maximum(s, -num_bits)) / 2 for s in (best, rival))
    else:
        nearest, farther = (np.sqrt(np.maximum(2.0 - 2.0 * np.maximum(s, -1.0), 0.0)) for s in (best, rival))
    return np.divide(nearest, farther, out=np.ones_like(nearest), where=farther > 0)


def _require_comparable(descriptors0: Descriptors, descriptors1: Descriptors) -> None:
    kinds = [f"{d.dtype} of length {d.shape[1]}" for d in (descriptors0, descriptors1)]
    if kinds[0] != kinds[1]:
        raise MatcherError(
            f"descriptors of type {kinds[0]} cannot be compared with {kinds[1]}: "
            "extract both images with the same extractor."
        )
    if descriptors0.dtype == np.uint8:
        return
    for number, descriptors in enumerate((descriptors0, descriptors1)):
        squared_lengths = np.einsum("nd,nd->n", descriptors, descriptors)
        wrong = ~(np.abs(squared_lengths - 1.0) <= _UNIT_LENGTH_TOLERANCE)  # true also for NaN
        if np.any(wrong):
            raise MatcherError(
                f"{np.count_nonzero(wrong)} of the {len(wrong)} descriptors of image {number} do not have unit length "
                f"(the first has length {np.sqrt(squared_lengths[wrong][0]):.3g}): have the extractor normalise them "
                "and leave out those that are not finite."
            )
