"""Images from ``sensor_msgs/Image`` and ``CompressedImage``, of any encoding a camera driver publishes.

The messages may come from rclpy or from rosbags. Written here because ``cv_bridge`` needs a sourced ROS,
and ``rosbags-image`` reads padded rows askew (it ignores ``step``), cuts 16 bits down without rounding
and has no depth transport.

Rules where the standard leaves room, the same as those of cv_bridge:

* 16-bit images are scaled by their whole range, and, unlike there, by that of 10, 12 or 14 bits where the values
  stay below: what such a sensor's image would keep of it are a few grey values.
* ``8UC3`` and ``8UC4`` are BGR and BGRA, ``8UC1`` and ``16UC1`` are grey.
* Grey from YUV is the Y channel as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Image
from feature_matcher_ros.errors import ImageError
from feature_matcher_ros.images import to_eight_bits


class ImageMessage(Protocol):
    """The fields of ``sensor_msgs/msg/Image`` that matter here."""

    height: int
    width: int
    encoding: str
    is_bigendian: Any  # bool or int
    step: int  # bytes from one row to the next
    data: Any  # bytes, array.array or numpy array


class CompressedImageMessage(Protocol):
    """The fields of ``sensor_msgs/msg/CompressedImage`` that matter here."""

    format: str
    data: Any


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the pixels of an encoding lie in memory, and OpenCV's codes to convert them (None: as they are)."""

    bits: int
    channels: int
    to_grey: int | None = None
    to_bgr: int | None = None


_COLOR_LAYOUTS = {
    "bgr": (3, cv2.COLOR_BGR2GRAY, None),
    "rgb": (3, cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2BGR),
    "bgra": (4, cv2.COLOR_BGRA2GRAY, cv2.COLOR_BGRA2BGR),
    "rgba": (4, cv2.COLOR_RGBA2GRAY, cv2.COLOR_RGBA2BGR),
    # OpenCV names a Bayer pattern by the second row's second and third pixel.
    "bayer_rggb": (1, cv2.COLOR_BayerBG2GRAY, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2GRAY, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2GRAY, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2GRAY, cv2.COLOR_BayerGB2BGR),
    "mono": (1, None, None),
}
_UYVY = _Layout(8, 2, cv2.COLOR_YUV2GRAY_UYVY, cv2.COLOR_YUV2BGR_UYVY)
_YUYV = _Layout(8, 2, cv2.COLOR_YUV2GRAY_YUY2, cv2.COLOR_YUV2BGR_YUY2)
_LAYOUTS = {
    **{f"{name}{bits}": _Layout(bits, *rest) for name, rest in _COLOR_LAYOUTS.items() for bits in (8, 16)},
    **{"yuv422": _UYVY, "uyvy": _UYVY, "yuv422_yuy2": _YUYV, "yuyv": _YUYV},
    **{"nv21": _Layout(8, 1), "nv24": _Layout(8, 1)},  # the first plane, which is grey
}
for _generic, _named in (("8UC1", "mono8"), ("16UC1", "mono16"), ("8UC3", "bgr8"), ("8UC4", "bgra8")):
    _LAYOUTS[_generic] = _LAYOUTS[_named]

_PAIRED = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv21")

# BT.601, video range: B, G and R from Y, U and V (OpenCV's own conversion takes no 4:4:4 in that range).
_BGR_FROM_YUV = np.array(
    [[1.164, 2.018, 0.0, -276.928], [1.164, -0.391, -0.813, 135.488], [1.164, 0.0, 1.596, -222.912]]
)


def decode_image(message: ImageMessage, color: bool = False) -> Image:
    """Return the image (H, W), or with ``color`` BGR (H, W, 3) where there is colour.

    An image that is stored in the wanted form already is returned as a view of the message, which is
    read-only where the message is.

    Raises:
        ImageError: the encoding is unknown, there are no pixels, or fewer bytes than the size asks for.
    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise ImageError(
            f"the image encoding '{message.encoding}' is not supported: publish one of {', '.join(_LAYOUTS)}."
        )
    _check_shape(message)
    if color and message.encoding in ("nv21", "nv24"):
        return _bgr_from_planes(message)
    pixels = view_pixels(message, np.dtype(f"u{layout.bits // 8}"), layout.channels)
    return _converted(pixels, layout.to_bgr if color else layout.to_grey)


def decode_compressed_image(message: CompressedImageMessage, color: bool = False) -> Image:
    """Return the JPEG or PNG image (H, W), or with ``color`` BGR (H, W, 3) where there is colour.

    Raises:
        ImageError: the bytes are no complete image, or a depth map.
    """
    if "compressedDepth" in message.format:
        raise ImageError(f"'{message.format}' holds depth, not an image: choose an image topic.")
    mosaic = _mosaic_layout(message.format)
    # The orientation that a camera noted must not turn the image away from its calibration.
    flags = cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
    flags |= cv2.IMREAD_ANYCOLOR if color and mosaic is None else cv2.IMREAD_GRAYSCALE
    pixels = read_encoded(message.data, message.format, flags)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"an image in '{message.format}' holds {pixels.dtype}: publish 8 or 16 bits a channel.")
    if mosaic is None:
        return _converted(pixels, None)
    return _converted(pixels, mosaic.to_bgr if color else mosaic.to_grey)


def view_pixels(message: ImageMessage, dtype: np.dtype[Any], channels: int, height: int | None = None) -> NDArray[Any]:
    """View the bytes of a message as pixels (H, W) or (H, W, C), in native byte order.

    Copies only to turn the bytes of big-endian values around, or where rows begin between two values.

    Raises:
        ImageError: there are no pixels, or fewer bytes than the size asks for.
    """
    height = message.height if height is None else height
    row_bytes = message.width * channels * dtype.itemsize
    size = f"{message.width}x{message.height} pixels in '{message.encoding}'"
    if message.height <= 0 or message.width <= 0:
        raise ImageError(f"an image of {size} cannot be used: the driver must publish whole images.")
    if message.step < row_bytes:
        raise ImageError(
            f"an image of {size} has {row_bytes} bytes a row but a step of {message.step}: correct step or encoding."
        )
    data = np.frombuffer(message.data, np.uint8) if len(message.data) else np.zeros(0, np.uint8)
    needed = message.step * (height - 1) + row_bytes
    if len(data) < needed:
        raise ImageError(f"an image of {size} takes {needed} bytes but holds {len(data)}: it was cut off on its way.")
    rows = np.ndarray((height, row_bytes), np.uint8, data, strides=(message.step, 1))
    if message.step % dtype.itemsize:
        rows = np.ascontiguousarray(rows)
    values = rows.view(dtype.newbyteorder(">" if message.is_bigendian else "<")).astype(dtype, copy=False)
    return values if channels == 1 else values.reshape(height, message.width, channels)


def read_encoded(data: Any, name: str, flags: int) -> NDArray[Any]:
    """Decode JPEG or PNG bytes with OpenCV.

    Raises:
        ImageError: the bytes are no complete image.
    """
    encoded = bytes(data)
    # The decoder fills what is missing of a JPEG with grey instead of failing.
    cut_off = encoded.startswith(b"\xff\xd8") and encoded.rfind(b"\xff\xd9") < 0  # found at once from the end
    try:
        pixels = None if cut_off else cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ImageError(
            f"an image of format '{name}' is no complete JPEG or PNG: it was cut off on its way, or has another format."
        )
    return pixels


def _mosaic_layout(name: str) -> _Layout | None:
    """The Bayer pattern of what was compressed without its colours being made, "bayer_rggb8; png compressed "."""
    encoding, _, transport = name.partition(";")
    if encoding.startswith("bayer_") and not transport.strip().endswith(("bgr8", "rgb8", "mono8", "bgr16", "mono16")):
        return _LAYOUTS.get(encoding.strip())
    return None


def _converted(pixels: NDArray[Any], code: int | None) -> Image:
    return to_eight_bits(pixels if code is None else cv2.cvtColor(pixels, code))


def _check_shape(message: ImageMessage) -> None:
    """Refuse sizes that the encoding cannot have, or that OpenCV turns into black."""
    encoding, width, height = message.encoding, message.width, message.height
    if (encoding in _PAIRED and width % 2) or (encoding == "nv21" and height % 2):
        raise ImageError(f"an image in '{encoding}' cannot have {width}x{height} pixels: they share their colours.")
    if encoding.startswith("bayer_") and 0 < min(width, height) < 3:
        raise ImageError(f"an image in '{encoding}' of {width}x{height} pixels is too small to make colours of.")


def _bgr_from_planes(message: ImageMessage) -> Image:
    """Decode nv21 (4:2:0, V before U) or nv24 (4:4:4, U before V): a plane of Y, then one of both colours."""
    height, width, byte = message.height, message.width, np.dtype(np.uint8)
    if message.encoding == "nv21":
        return cv2.cvtColor(view_pixels(message, byte, 1, height * 3 // 2), cv2.COLOR_YUV2BGR_NV21)
    luma = view_pixels(message, byte, 1, 3 * height)[:height]
    strides = (2 * message.step, 2, 1)
    chroma = np.ndarray((height, width, 2), np.uint8, message.data, height * message.step, strides)
    return cv2.transform(np.concatenate([luma[:, :, None], chroma], axis=2), _BGR_FROM_YUV)
