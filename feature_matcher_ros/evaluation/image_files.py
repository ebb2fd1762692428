"""Images and depth maps in files, and the names and numbers of these files."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Image
from feature_matcher_ros.errors import ImageError
from feature_matcher_ros.evaluation.trajectories import stamp_from_nanoseconds, stamp_from_seconds
from feature_matcher_ros.images import to_eight_bits

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".exr", ".pgm", ".pfm")


def read_image(path: Path, color: bool = False) -> Image:
    """Decode an image file as grey (H, W), or as BGR (H, W, 3); 16 bits become 8.

    Raises:
        ImageError: the file is missing, or no image.
    """
    image = _decode(path, cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE))
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"'{path}' holds {image.dtype}, not an image: give 8 or 16 bits a channel.")
    return to_eight_bits(image)


def read_depth(path: Path, units_per_m: float) -> NDArray[np.float32]:
    """Decode a depth map (H, W) to metres: integers are divided by ``units_per_m``, floats hold metres.

    Zero, the largest integer and whatever is not finite mean that nothing is known and become NaN.

    Raises:
        ImageError: the file is missing, no image, or an image that holds no depth.
    """
    stored = _decode(path, cv2.IMREAD_UNCHANGED)
    if stored.ndim != 2 or stored.dtype not in (np.uint16, np.int32, np.float32, np.float64):
        raise ImageError(
            f"'{path}' of shape {stored.shape} and type {stored.dtype} holds no depth: give one channel of 16 bits "
            "or of floating point."
        )
    depth = stored.astype(np.float32)
    unknown = ~np.isfinite(depth) | (depth <= 0.0)
    if np.issubdtype(stored.dtype, np.integer):
        unknown |= stored == np.iinfo(stored.dtype).max
        depth /= np.float32(units_per_m)
    depth[unknown] = np.nan
    return depth


def list_images(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """Image files of a folder in natural order, so that 10 comes after 9; empty where there is no folder."""
    if not folder.is_dir():
        return []
    files = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(files, key=natural_key)


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Key that puts names in order with their numbers compared as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), part) if part.isdigit() else (0, part) for part in parts]


def stamp_from_text(text: str) -> int:
    """Nanoseconds of a written time; the number of digits of an integer tells its unit.

    With a decimal point, or below 12 digits, it is seconds; up to 14 digits milliseconds, up to 16
    microseconds, above nanoseconds. That holds for any time since 1970 that a dataset was recorded at.

    Raises:
        ValueError: the text is no time.
    """
    digits = text.strip().lstrip("+-")
    if not digits.isdigit() or len(digits) < 12:
        return stamp_from_seconds(text.strip())
    zeros = 6 if len(digits) <= 14 else 3 if len(digits) <= 16 else 0
    return stamp_from_nanoseconds(text.strip() + "0" * zeros)


def stamp_from_name(path: Path) -> int | None:
    """Nanoseconds of a file named by its time, ``1341847980.722988.png`` or ``1403715273262142976.png``.

    A short integer is a running number, not a time: None.
    """
    is_time = re.fullmatch(r"\d+\.\d+|[1-9]\d{12,18}", path.stem)
    try:
        return stamp_from_text(path.stem) if is_time else None
    except ValueError:
        return None


def number_from_name(path: Path) -> int | None:
    """The last number in a file's name, None where there is none: 12 for ``left_000012.png``."""
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None


def _decode(path: Path, flags: int) -> NDArray[np.uint8]:
    # Decoded from memory, because cv2.imread prints a warning of its own about a missing file.
    try:
        data = np.fromfile(path, dtype=np.uint8)
        image = cv2.imdecode(data, flags) if data.size else None
    except (OSError, cv2.error) as error:
        raise ImageError(
            f"'{path}' cannot be read as an image ({_reason(error)}): give a PNG, JPEG or TIFF file."
        ) from error
    if image is None:
        raise ImageError(
            f"'{path}' cannot be read as an image (it is empty or damaged): give a PNG, JPEG or TIFF file."
        )
    return image


def _reason(error: OSError | cv2.error) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
