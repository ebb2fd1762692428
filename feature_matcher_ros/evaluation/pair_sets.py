"""Sets of image pairs with known geometry, listed in a JSON file.

The file holds a list of pairs, each with ``img0 img1`` (paths relative to the file), ``K0 K1`` (3, 3),
``T_cam1_from_cam0`` (4, 4) and, for images that are not rectified, ``dist0 dist1`` (OpenCV's order).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_matcher_ros.datatypes import Camera, Float, Frame
from feature_matcher_ros.errors import CalibrationError, ImageError, SourceError
from feature_matcher_ros.evaluation.calibration import camera_from_mapping, pose_matrix_from
from feature_matcher_ros.evaluation.image_files import read_image


@dataclass(frozen=True, slots=True, eq=False)
class ImagePair:
    """Two images, their cameras and the true motion between them."""

    image0: Path
    image1: Path
    camera0: Camera
    camera1: Camera
    cam1_from_cam0: Float  # (4, 4), metres where the set is metric

    @property
    def name(self) -> str:
        return f"{self.image0.stem} | {self.image1.stem}"

    def frames(self) -> tuple[Frame, Frame]:
        """Decode both images; they have no times, so these are 0 and 1 ns.

        Raises:
            ImageError: an image has gone, or changed its size, since the set was loaded.
        """
        return (
            Frame(0, read_image(self.image0), self.camera0),
            Frame(1, read_image(self.image1), self.camera1),
        )


def load_pairs(path: Path) -> list[ImagePair]:
    """Load a set of pairs; every image is decoded once, to know its size.

    Raises:
        SourceError: the file, an image or a number in it cannot be used.
    """
    pairs = _read_json(path)
    sizes: dict[Path, tuple[int, int]] = {}
    return [_load_pair(pair, path, f"pair {number} of '{path}'", sizes) for number, pair in enumerate(pairs)]


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        pairs = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SourceError(f"the pairs '{path}' cannot be read ({error}): give a JSON file with a list.") from error
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, dict) for pair in pairs):
        raise SourceError(f"'{path}' holds no list of pairs: each needs img0, img1, K0, K1 and T_cam1_from_cam0.")
    missing = [key for pair in pairs for key in ("img0", "img1", "K0", "K1", "T_cam1_from_cam0") if key not in pair]
    if missing:
        raise SourceError(f"a pair of '{path}' has no {missing[0]}: add it.")
    return pairs


def _load_pair(pair: dict[str, Any], path: Path, where: str, sizes: dict[Path, tuple[int, int]]) -> ImagePair:
    try:
        return _pair_from(pair, path.parent, sizes)
    except (CalibrationError, ImageError) as error:
        raise SourceError(f"{where}: {error}") from error


def _pair_from(pair: dict[str, Any], folder: Path, sizes: dict[Path, tuple[int, int]]) -> ImagePair:
    image0, image1 = folder / str(pair["img0"]), folder / str(pair["img1"])
    return ImagePair(
        image0,
        image1,
        _camera(pair["K0"], pair.get("dist0"), _image_size(image0, sizes)),
        _camera(pair["K1"], pair.get("dist1"), _image_size(image1, sizes)),
        pose_matrix_from(pair["T_cam1_from_cam0"], "T_cam1_from_cam0"),
    )


def _camera(K: object, distortion: object, size: tuple[int, int]) -> Camera:
    return camera_from_mapping({"width": size[0], "height": size[1], "K": K, "D": distortion})


def _image_size(path: Path, sizes: dict[Path, tuple[int, int]]) -> tuple[int, int]:
    """Width and height of an image; decoding says them for certain, and each image is decoded only once."""
    if path not in sizes:
        height, width = read_image(path).shape
        sizes[path] = (width, height)
    return sizes[path]
