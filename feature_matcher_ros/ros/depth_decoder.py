"""Depth maps from ``sensor_msgs/Image`` and from the ``compressedDepth`` transport, in metres.

Invalid is NaN, whatever the message says it with (REP-118): 0 in integer maps, NaN, infinity or a value
that is not positive in maps of floating point. An integer map's largest value is invalid too: it is what
sensors write beyond their range.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.errors import ImageError
from feature_matcher_ros.ros.image_decoder import CompressedImageMessage, ImageMessage, read_encoded, view_pixels

Depth = NDArray[np.float32]

MILLIMETRES = 1000.0  # in a metre; REP-118's unit of integer depth
_HEADER = struct.Struct("<iff")  # of compressedDepth: format, quantisation A and B
_PNG_MAGIC = b"\x89PNG"


def decode_depth(message: ImageMessage, units_per_m: float = MILLIMETRES) -> Depth:
    """Return depth along the optical axis in metres (H, W), NaN where unknown.

    ``units_per_m`` is that of integer maps (``16UC1``, or ``mono16`` of older drivers); ``32FC1`` holds metres.

    Raises:
        ImageError: the encoding is none of depth, or the message holds fewer bytes than it says.
    """
    if message.encoding in ("16UC1", "mono16"):
        return _from_integers(view_pixels(message, np.dtype(np.uint16), 1), units_per_m)
    if message.encoding == "32FC1":
        return _valid(view_pixels(message, np.dtype(np.float32), 1))
    raise ImageError(
        f"the encoding '{message.encoding}' is none of depth: publish 16UC1 (millimetres) or 32FC1 (metres)."
    )


def decode_compressed_depth(message: CompressedImageMessage, units_per_m: float = MILLIMETRES) -> Depth:
    """Return depth in metres (H, W), NaN where unknown, from ``compressedDepth`` or a plain 16-bit PNG.

    ``compressedDepth`` puts 12 bytes before the PNG and stores maps of floating point as inverse depth:
    ``depth = A / (value - B)``, 0 where unknown.

    Raises:
        ImageError: the bytes are no 16-bit PNG; the transport's other codec, RVL, is not supported.
    """
    if message.format.strip().endswith("rvl"):
        raise ImageError(f"depth in '{message.format}' is not supported: set the transport's format to png.")
    data = bytes(message.data)
    start = 0 if data.startswith(_PNG_MAGIC) else _HEADER.size
    values = read_encoded(data[start:], message.format, cv2.IMREAD_UNCHANGED)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise ImageError(
            f"depth in '{message.format}' must be a grey 16-bit PNG, not {values.dtype}{values.shape[2:]}."
        )
    if start == 0 or not message.format.startswith("32FC1"):
        return _from_integers(values, units_per_m)
    _, a, b = _HEADER.unpack_from(data)
    with np.errstate(divide="ignore"):
        return _valid(np.where(values == 0, np.float32(np.nan), np.float32(a) / (values - np.float32(b))))


def _from_integers(values: NDArray[np.uint16], units_per_m: float) -> Depth:
    depth = np.divide(values, np.float32(units_per_m), dtype=np.float32)
    depth[(values == 0) | (values == np.iinfo(np.uint16).max)] = np.nan
    return depth


def _valid(depth: NDArray[Any]) -> Depth:
    return np.where((depth > 0) & (depth < np.inf), depth, np.float32(np.nan))
