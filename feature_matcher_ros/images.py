"""Grey values and sizes of images, and the way of their pixels back to the original."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Image, Pixels

_SENSOR_BITS = (10, 12, 14, 16)


def to_grey(image: Image) -> Image:
    """Grey values (H, W) of a grey (H, W) or BGR (H, W, 3) image; a grey image is returned as it is."""
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def to_eight_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Image:
    """Scale pixels of 16 bits to 8, whatever their shape; those of 8 bits are returned as they are.

    A sensor of 10, 12 or 14 bits may leave the upper bits zero, and scaled by the whole range its image would keep 4,
    16 or 64 grey values. The brightest pixel tells how many bits are in use, of the numbers that there are.
    """
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    used = int(pixels.max()).bit_length()
    bits = next(bits for bits in _SENSOR_BITS if bits >= used)
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255.0 / (2**bits - 1)), dtype=np.uint8)


def image_size(image: Image) -> tuple[int, int]:
    """(width, height) in pixels."""
    return image.shape[1], image.shape[0]


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Resize to (width, height), the area of the image being kept: its corners, not its pixel centres, coincide.

    Shrinking averages (no aliasing), enlarging interpolates linearly.
    """
    if size == image_size(image):
        return image
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def shrink_to_fit(image: Image, max_size_px: int) -> Image:
    """Shrink until the longer side has at most ``max_size_px`` pixels; a smaller image stays as it is."""
    width, height = image_size(image)
    scale = max_size_px / max(width, height)
    if scale >= 1.0:
        return image
    return resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))


def to_original_pixels(
    pixels: NDArray[np.floating], resized_size: tuple[int, int], original_size: tuple[int, int]
) -> Pixels:
    """Map pixels (N, 2) of a resized image back to the original; sizes are (width, height).

    Pixel centres are at integers, so a coordinate maps as ``(x + 0.5) * scale - 0.5``.
    """
    scale = np.asarray(original_size, dtype=np.float64) / np.asarray(resized_size, dtype=np.float64)
    return ((np.asarray(pixels, dtype=np.float64) + 0.5) * scale - 0.5).astype(np.float32)
