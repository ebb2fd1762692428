"""The seam between the front-end and every method that finds correspondences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Features, Image, Matches
from feature_matcher_ros.errors import FrameError, MatcherError


class Matcher(Protocol):
    """Finds correspondences: work per frame in ``extract``, work per pair in ``match``.

    Sparse matchers keep keypoints and descriptors in ``Features``, detector-free ones the features
    of their backbone; to everyone else ``Features`` is opaque.
    """

    @property
    def name(self) -> str:
        """The name, as written in the configuration and in every result."""

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        """Do all that depends on one image alone, (H, W) grey or (H, W, 3) BGR.

        Raises:
            MatcherError: the features are not finite; such a keyframe would spoil all frames after it.
        """

    def match(self, features0: Features, features1: Features) -> Matches:
        """Find the correspondences of two images; possibly none, never an error for lack of features."""


@contextmanager
def naming_frame(stamp_ns: int, frame_id: str) -> Iterator[None]:
    """Name the frame that a matcher, which sees no stamps, cannot process.

    Raises:
        FrameError: the matcher or its extractor raised a MatcherError.
    """
    try:
        yield
    except MatcherError as error:
        raise FrameError(stamp_ns, frame_id, str(error)) from error


def require_finite(features: Features) -> Features:
    """Pass features on if their keypoints and descriptors are finite throughout.

    Raises:
        MatcherError: they are not.
    """
    require_numbers(features.keypoints, features.descriptors)
    return features


def require_numbers(*arrays: NDArray[Any]) -> None:
    """Check what was made of keypoints and descriptors.

    Raises:
        MatcherError: there is a NaN or an infinity.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise MatcherError(
            "a descriptor or keypoint is NaN or infinite: "
            "the image or the extractor's weights are damaged, replace them."
        )


def require_descriptors(descriptors: NDArray[np.generic], length: int, network: str) -> None:
    """Check that descriptors are (N, length) of float32.

    Raises:
        MatcherError: they are not.
    """
    if descriptors.dtype != np.float32 or descriptors.ndim != 2 or descriptors.shape[1] != length:
        raise MatcherError(
            f"descriptors of shape {descriptors.shape} and type {descriptors.dtype} do not fit this {network} network, "
            f"which takes float32 of length {length}: choose the extractor it was trained for."
        )
