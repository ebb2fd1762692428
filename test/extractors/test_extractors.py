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


def blobs(sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Bright blobs on grey, and their centres (N, 2), anywhere between the pixels."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[0:240, 0:320]
    grid = np.stack(np.meshgrid(np.arange(40, 300, 60), np.arange(40, 220, 60)), axis=-1).reshape(-1, 2)
    centres = grid + rng.uniform(-0.5, 0.5, grid.shape)
    image = np.full(rows.shape, 80.0)
    for x, y in centres:
        squared = (columns - x) ** 2 + (rows - y) ** 2
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
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_orientation_is_that_of_the_brighter_side_clockwise_from_the_x_axis(name: str, quarters: int) -> None:
    rows, columns = np.mgrid[0:101, 0:101] - 50
    image = 110 + columns + 90 * np.exp(-(rows**2 + columns**2) / (2 * 5**2))  # brighter at the right
    anticlockwise = np.ascontiguousarray(np.rot90(np.clip(image, 0, 255).astype(np.uint8), quarters))
    found = extract(name, anticlockwise, max_keypoints=5)
    assert found.orientations is not None
    mean = np.exp(1j * found.orientations.astype(np.float64)).mean()
    assert abs(np.angle(mean * np.exp(1j * quarters * np.pi / 2))) < 0.2


@BOTH
def test_descriptors_and_shapes_are_as_documented(name: str) -> None:
    found = extract(name, texture(), max_keypoints=200)
    length, dtype = DESCRIPTORS[name]
    assert found.descriptors.shape == (200, length) and found.descriptors.dtype == dtype
    assert found.keypoints.shape == (200, 2) and found.keypoints.dtype == np.float32
    assert found.image_size == (320, 240)
    assert np.all(np.diff(found.keypoint_scores) <= 0)
    assert len(np.unique(found.keypoints, axis=0)) == 200
    if name == "sift":
        np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1.0, atol=1e-5)


@BOTH
def test_the_same_image_gives_the_same_features(name: str) -> None:
    extractor = create_extractor(ExtractorConfig(name=name))
    first, again = extractor.extract(texture()), extractor.extract(texture())
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    np.testing.assert_array_equal(first.descriptors, again.descriptors)


@BOTH
def test_colour_is_turned_to_grey(name: str) -> None:
    grey = texture()
    in_colour = extract(name, cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    np.testing.assert_array_equal(in_colour.keypoints, extract(name, grey).keypoints)


@BOTH
def test_no_point_lies_where_the_mask_is_0(name: str) -> None:
    mask = np.zeros((240, 320), np.uint8)
    mask[60:180, 100:220] = 1
    found = extract(name, texture(), mask)
    assert len(found) > 20
    assert np.all((found.keypoints > [99.5, 59.5]) & (found.keypoints < [219.5, 179.5]))
    assert len(extract(name, texture(), np.zeros_like(mask))) == 0
    with pytest.raises(MatcherError, match=r"mask of shape \(240, 319\) .* 320x240 pixels: give"):
        extract(name, texture(), mask[:, 1:])


@BOTH
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (15, 400), (16, 16), (5, 9000), (480, 640, 3)])
def test_images_without_points_give_empty_features(name: str, shape: tuple[int, ...]) -> None:
    found = extract(name, np.full(shape, 77, np.uint8))
    length, dtype = DESCRIPTORS[name]
    assert len(found) == 0
    assert found.keypoints.shape == (0, 2) and found.keypoints.dtype == np.float32
    assert found.descriptors.shape == (0, length) and found.descriptors.dtype == dtype
    assert found.scales is not None and found.orientations is not None
    assert found.keypoint_scores.shape == found.scales.shape == found.orientations.shape == (0,)


@BOTH
def test_a_large_image_is_shrunk_and_its_points_mapped_back(name: str) -> None:
    small = extract(name, texture(), grid_cell_px=0)
    shrunk = extract(name, np.kron(texture(), np.ones((4, 4), np.uint8)), max_image_px=320, grid_cell_px=0)
    np.testing.assert_allclose(shrunk.keypoints, (small.keypoints + 0.5) * 4 - 0.5, atol=1e-4)
    np.testing.assert_array_equal(shrunk.descriptors, small.descriptors)
    assert shrunk.scales is not None and small.scales is not None
    np.testing.assert_allclose(shrunk.scales, 4 * small.scales)
    assert shrunk.image_size == (1280, 960)


@BOTH
def test_an_8k_image_needs_no_more_than_its_shrunk_copy(name: str) -> None:
    image = cv2.resize(texture(512, 288), (7680, 4320), interpolation=cv2.INTER_NEAREST)
    found = extract(name, image, max_image_px=1024)
    assert found.image_size == (7680, 4320)
    assert found.keypoints[:, 0].max() > 6000 and found.keypoints[:, 1].max() > 3500


@BOTH
def test_a_descriptor_belongs_to_its_own_keypoint(name: str) -> None:
    """Among two windows of one picture, the nearest descriptor of a point is that of the same place."""
    picture = texture(480, 360)
    here, there = extract(name, picture[:300, :400], max_keypoints=500), extract(name, picture[32:332, 48:448])
    if name == "orb":
        bits = [np.unpackbits(features.descriptors, axis=1).astype(np.float32) for features in (here, there)]
    else:
        bits = [features.descriptors for features in (here, there)]
    distances = np.linalg.norm(bits[0][:, None] - bits[1][None], axis=2)
    moved = here.keypoints - there.keypoints[distances.argmin(axis=1)]
    inside = np.all(here.keypoints > [80, 64], axis=1)
    same_place = np.linalg.norm(moved - [48, 32], axis=1) < 3.0
    assert np.mean(same_place[inside]) > 0.65
