"""SIFT and ORB on images whose points are known."""

import cv2
import numpy as np
import pytest

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Features
from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.extractors import create_extractor

BOTH = pytest.mark.parametrize("name", ["sift", "orb"])
DESCRIPTORS = {"sift": (128, np.float32), "orb": (32, np.uint8)}


def extract(name: str, image: np.ndarray, mask: np.ndarray | None = None, **config: int) -> Features:
    return create_extractor(ExtractorConfig(name=name, **config)).extract(image, mask)


def blobs(sigma_px: float, stretch: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Bright blobs on grey, and their centres (N, 2), anywhere between the pixels."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[0:240, 0:320]
    grid = np.stack(np.meshgrid(np.arange(40, 300, 60), np.arange(40, 220, 60)), axis=-1).reshape(-1, 2)
    centres = grid + rng.uniform(-0.5, 0.5, grid.shape)
    image = np.full(rows.shape, 80.0)
    for x, y in centres:
        squared = (columns - x) ** 2 + ((rows - y) / stretch) ** 2
        image += 120 * np.exp(-squared / (2 * sigma_px**2))
    return np.round(image).astype(np.uint8), centres


def texture(width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    """Noise with structures of many sizes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width))
    for size in (4, 8, 16, 32):
        small = rng.normal(size=(max(2, height // size), max(2, width // size)))
        image += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image * 30 + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma_px", [2.0, 4.0, 6.0])
def test_sift_finds_blobs_at_their_centres_and_of_their_size(sigma_px: float) -> None:
    image, centres = blobs(sigma_px)
    found = extract("sift", image)
    assert found.scales is not None
    offsets = found.keypoints[None] - centres[:, None]
    nearest = np.linalg.norm(offsets, axis=2).argmin(axis=1)
    errors = offsets[np.arange(len(centres)), nearest]
    assert np.abs(errors).max() < 0.12
    assert np.abs(errors.mean(axis=0)).max() < 0.02  # no quarter of a pixel to one side
    assert np.median(found.scales[nearest]) == pytest.approx(1.75 * sigma_px, rel=0.1)


@BOTH
def test_turning_the_image_upside_down_moves_points_exactly_as_pixels(name: str) -> None:
    """Shows pixel centres at integers: any other convention errs one way here and the other way there."""
    image = texture(641, 479)
    there = extract(name, image, max_keypoints=4000, grid_cell_px=0)
    back = extract(name, image[::-1, ::-1], max_keypoints=4000, grid_cell_px=0)
    turned = np.array([640, 478]) - back.keypoints
    distances = np.linalg.norm(there.keypoints[:, None] - turned[None], axis=2).min(axis=1)
    assert len(there) > 300
    assert np.mean(distances < 0.05) > 0.9


@BOTH
def test_orientation_is_clockwise_from_the_x_axis(name: str) -> None:
    """A blob that is cut off below is brighter above; turned by a quarter, it is brighter at the right."""
    size = 101
    rows, columns = np.mgrid[0:size, 0:size] - size // 2
    brighter_above = np.where(np.hypot(rows, columns) < 9, 200, 60)
    brighter_above[rows > 1] = 60
    image = cv2.GaussianBlur(brighter_above.astype(np.uint8), (0, 0), 1.0)
    for quarters, expected in enumerate([-np.pi / 2, np.pi, np.pi / 2, 0.0]):  # each quarter is anticlockwise
        found = extract(name, np.ascontiguousarray(np.rot90(image, quarters)), grid_cell_px=0)
        assert found.orientations is not None
        towards = np.exp(1j * found.orientations[:1]).sum()  # of the strongest point
        assert abs(np.angle(towards * np.exp(-1j * expected))) < 1.2 or name == "sift"
