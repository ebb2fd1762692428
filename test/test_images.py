"""Sizes of images and the way of their pixels back to the original."""

import numpy as np
import pytest

from feature_matcher_ros.images import resize, shrink_to_fit, to_grey, to_original_pixels


def ramp(width: int, height: int) -> np.ndarray:
    """An image whose grey values are known between its pixels too: 2 x + y."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return (2 * x + y).astype(np.uint8)


@pytest.mark.parametrize("size", [(20, 15), (40, 60), (120, 90)])
def test_a_pixel_of_a_resized_image_shows_the_place_it_maps_back_to(size: tuple[int, int]) -> None:
    original = ramp(60, 45)
    resized = resize(original, size)
    x, y = np.meshgrid(np.arange(2, size[0] - 2), np.arange(2, size[1] - 2))
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    back = to_original_pixels(pixels, size, (60, 45))
    assert back.dtype == np.float32
    values = resized[pixels[:, 1], pixels[:, 0]]
    np.testing.assert_allclose(values, 2 * back[:, 0] + back[:, 1], atol=1.01)
    assert abs(np.mean(values - (2 * back[:, 0] + back[:, 1]))) < 0.3  # a quarter of a pixel off would be 0.75


def test_corners_of_the_image_map_to_its_corners() -> None:
    corners = np.array([[-0.5, -0.5], [639.5, 479.5]])
    np.testing.assert_array_equal(
        to_original_pixels(corners, (640, 480), (1280, 1440)), [[-0.5, -0.5], [1279.5, 1439.5]]
    )
    assert to_original_pixels(np.zeros((0, 2)), (640, 480), (320, 240)).shape == (0, 2)


def test_shrinking_keeps_the_shape_and_never_enlarges() -> None:
    image = ramp(100, 50)
    assert shrink_to_fit(image, 100) is image
    assert shrink_to_fit(image, 40).shape == (20, 40)
    assert shrink_to_fit(np.zeros((1, 8000, 3), np.uint8), 1000).shape == (1, 1000, 3)


def test_grey_values_weigh_blue_green_red() -> None:
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, 0, 0] = image[0, 1, 1] = image[0, 2, 2] = 255
    np.testing.assert_array_equal(to_grey(image), [[29, 150, 76]])  # ITU-R BT.601
    grey = ramp(4, 3)
    assert to_grey(grey) is grey
    assert to_grey(grey[:, ::-1]).flags.c_contiguous
