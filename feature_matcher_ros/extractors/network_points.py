"""Points detected and described by a network: XFeat, ALIKED, DISK or SuperPoint."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Features, Image, Pixels
from feature_matcher_ros.extractors.point_graphs import PointGraphs
from feature_matcher_ros.extractors.selection import inside_image, require_mask_of, select_spread
from feature_matcher_ros.images import image_size, shrink_to_fit, to_grey, to_original_pixels
from feature_matcher_ros.models.point_network_config import PointNetworkConfig


class NetworkPoints:
    """Runs an exported network; descriptors (N, D) are float32 of unit length."""

    def __init__(self, graphs: PointGraphs, config: ExtractorConfig) -> None:
        self._graphs = graphs
        self._config = config

    @property
    def name(self) -> str:
        return self._graphs.config.name

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        """Points of an (H, W) grey or (H, W, 3) BGR image, none where the mask is 0; best first.

        Raises:
            MatcherError: the mask is not of the size of the image.
        """
        require_mask_of(image, mask)
        prepared = prepare(shrink_to_fit(image, self._config.max_image_px), self._graphs.config)
        found = self._graphs.detect.run({"image": prepared.pixels, "valid": prepared.valid})
        places, scores = _points(
            np.asarray(found["scores"]), np.asarray(found["shifts"]), self._graphs.config.min_score
        )
        keypoints = to_original_pixels(places - prepared.origin, prepared.content_size, image_size(image))
        allowed = inside_image(keypoints, image_size(image), mask)
        keypoints, places, scores = keypoints[allowed], places[allowed], scores[allowed]
        best = select_spread(keypoints, scores, self._config.max_keypoints, self._config.grid_cell_px)
        descriptors = np.zeros((0, self._graphs.config.descriptor_size), np.float32)
        if len(best):
            given = {"features": found["features"], "keypoints": places[best]}
            descriptors = np.asarray(self._graphs.describe.run(given)["descriptors"])
        return Features(keypoints[best], scores[best], descriptors, image_size(image))


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image as a network takes it."""

    pixels: NDArray[np.float32]  # (1, channels, H, W) in [0, 1]
    valid: NDArray[np.float32]  # (1, 1, H, W), 1 where the content is, else 0
    origin: NDArray[np.float32]  # (2,), where in it the first pixel of the content lies
    content_size: tuple[int, int]  # (width, height) of the content


def prepare(image: Image, config: PointNetworkConfig) -> Prepared:
    """Give an image the channels and the size that a network wants."""
    values = _channels(image, config)
    width, height = image_size(image)
    if config.fits_by_resizing:
        size = (_below(width, config.multiple), _below(height, config.multiple))
        values = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR))
        origin, content_size = (0, 0), size
    else:  # with equal borders, as the networks' authors do, filled with the image's outermost pixels
        right, bottom = -width % config.multiple, -height % config.multiple
        origin, content_size = (right // 2, bottom // 2), (width, height)
        borders = (origin[1], bottom - origin[1], origin[0], right - origin[0])
        values = np.asarray(cv2.copyMakeBorder(values, *borders, cv2.BORDER_REPLICATE))
    channels_first = np.moveaxis(np.atleast_3d(values), 2, 0)[None]
    pixels = np.ascontiguousarray(channels_first, np.float32) / np.float32(255.0)
    valid = np.zeros((1, 1, *pixels.shape[2:]), np.float32)
    valid[:, :, origin[1] : origin[1] + content_size[1], origin[0] : origin[0] + content_size[0]] = 1.0
    return Prepared(pixels, valid, np.array(origin, np.float32), content_size)


def _channels(image: Image, config: PointNetworkConfig) -> NDArray[np.float32]:
    """(H, W) or (H, W, 3), in [0, 255], red first."""
    if config.channels == 3:
        conversion = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
        return np.asarray(cv2.cvtColor(image, conversion), np.float32)
    if config.averages_colors and image.ndim == 3:
        return image.mean(axis=2, dtype=np.float32)
    return to_grey(image).astype(np.float32)


def _below(size: int, multiple: int) -> int:
    return max(multiple, size // multiple * multiple)


def _points(
    scores: NDArray[np.float32], shifts: NDArray[np.float32], min_score: float
) -> tuple[Pixels, NDArray[np.float32]]:
    """Places (N, 2) and scores (N,) of what is above a score."""
    rows, columns = np.nonzero(scores > min_score)
    places = np.column_stack((columns, rows)).astype(np.float32) + shifts[:, rows, columns].T
    return places, scores[rows, columns]
