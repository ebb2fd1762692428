"""What happens around a network: preparation of the image, choice of the points, way back to the original pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
import pytest
from fakes import FakeRuntime

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Image
from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.extractors.network_points import NetworkPoints, prepare
from feature_matcher_ros.extractors.point_graphs import PointGraphs, describe_spec, detect_spec
from feature_matcher_ros.models.point_network_config import PointNetworkConfig

EXTENDED = PointNetworkConfig("fake", 2, 1, 32, min_score=0.5)
RESIZED = replace(EXTENDED, fits_by_resizing=True)
PLAIN = ExtractorConfig(max_keypoints=10, grid_cell_px=0)
Arrays = Mapping[str, np.ndarray]


def bright_pixels(config: PointNetworkConfig, shift: float = 0.0) -> PointGraphs:
    """Its points are pixels, their scores the values, their descriptors the places in the prepared image."""

    def detect(given: Arrays) -> dict[str, np.ndarray]:
        values = given["image"][0, 0]
        shifts = np.full((2, *values.shape), shift, np.float32)
        return {"scores": values, "shifts": shifts, "features": np.zeros((1, 2, 4, 4), np.float32)}

    return PointGraphs(
        config,
        FakeRuntime(detect_spec(config), detect),
        FakeRuntime(describe_spec(config), lambda given: {"descriptors": given["keypoints"]}),
    )


def picture(width: int, height: int, *points: tuple[int, int, int]) -> Image:
    image = np.zeros((height, width), np.uint8)
    for x, y, value in points:
        image[y, x] = value
    return image


def test_points_come_back_in_original_pixels_best_first() -> None:
    image = picture(100, 70, (50, 20, 200), (10, 60, 255), (3, 3, 100))  # extended to 128 x 96
    features = NetworkPoints(bright_pixels(EXTENDED), PLAIN).extract(image)
    assert features.keypoints.tolist() == [[10, 60], [50, 20]]  # the third is below the least score
    assert features.keypoint_scores.tolist() == pytest.approx([1.0, 200 / 255])
    assert features.descriptors.tolist() == [[10 + 14, 60 + 13], [50 + 14, 20 + 13]]
    assert features.image_size == (100, 70)


def test_shifts_move_points_and_what_leaves_the_image_is_dropped() -> None:
    image = picture(64, 64, (63, 20, 255), (30, 30, 200))
    features = NetworkPoints(bright_pixels(EXTENDED, shift=0.75), PLAIN).extract(image)
    assert features.keypoints.tolist() == [[30.75, 30.75]]


def test_a_resized_image_maps_back_by_areas() -> None:
    image = np.zeros((36, 80), np.uint8)
    image[:, 38:42] = 255  # its middle, seen with 64 x 32 pixels, lies between pixels 31 and 32
    features = NetworkPoints(bright_pixels(RESIZED), ExtractorConfig(max_keypoints=1000, grid_cell_px=0)).extract(image)
    assert features.keypoints[:, 0].mean() == pytest.approx(39.5, abs=1e-3)
    assert features.keypoints[:, 1].mean() == pytest.approx(17.5, abs=1e-3)


def test_large_images_are_shrunk_first() -> None:
    image = picture(128, 64, *((x, y, 255) for x in (60, 61, 62, 63) for y in (20, 21, 22, 23)))
    features = NetworkPoints(bright_pixels(EXTENDED), replace(PLAIN, max_image_px=64)).extract(image)
    assert sorted(features.keypoints.tolist()) == [[60.5, 20.5], [60.5, 22.5], [62.5, 20.5], [62.5, 22.5]]
    assert features.image_size == (128, 64)


def test_masks_and_the_number_of_points_are_obeyed() -> None:
    image = picture(64, 32, (10, 5, 255), (40, 5, 250), (50, 5, 240))
    mask = np.full((32, 64), 255, np.uint8)
    mask[:, :32] = 0
    extractor = NetworkPoints(bright_pixels(EXTENDED), replace(PLAIN, max_keypoints=1))
    assert extractor.extract(image, mask).keypoints.tolist() == [[40, 5]]
    with pytest.raises(MatcherError, match=r"\(64, 32\) cannot cover an image of 64x32"):
        extractor.extract(image, mask.T)


@pytest.mark.parametrize("config", [EXTENDED, RESIZED])
@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (64, 64, 3)])
def test_images_without_points_give_none(config: PointNetworkConfig, shape: tuple[int, ...]) -> None:
    graphs = bright_pixels(config)
    features = NetworkPoints(graphs, PLAIN).extract(np.zeros(shape, np.uint8))
    assert features.keypoints.shape == features.descriptors.shape == (0, 2)
    assert isinstance(graphs.describe, FakeRuntime)
    assert graphs.describe.calls == []  # an engine cannot be given nothing


def test_channels_are_those_of_the_network() -> None:
    bgr = np.zeros((32, 32, 3), np.uint8)
    bgr[..., 0], bgr[..., 2] = 30, 90
    three = prepare(bgr, replace(EXTENDED, channels=3)).pixels
    assert three.shape == (1, 3, 32, 32)
    assert three[0, :, 0, 0] * 255 == pytest.approx([90, 0, 30])
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    assert prepare(bgr, EXTENDED).pixels[0, 0] * 255 == pytest.approx(grey)
    assert prepare(bgr, replace(EXTENDED, averages_colors=True)).pixels[0, 0] * 255 == pytest.approx(
        np.full((32, 32), 40)
    )
    assert prepare(grey, replace(EXTENDED, channels=3)).pixels[0] * 255 == pytest.approx(np.stack([grey] * 3))


def test_an_extended_image_repeats_its_outermost_pixels() -> None:
    prepared = prepare(np.full((31, 20), 51, np.uint8), EXTENDED)
    assert prepared.pixels.shape == (1, 1, 32, 32)
    assert prepared.pixels == pytest.approx(0.2)
    assert prepared.origin.tolist() == [6, 0]
    assert prepared.valid.sum() == 31 * 20
    assert prepared.valid[0, 0, :31, 6:26].min() == 1
