"""The images that training starts from: a folder of photographs, or procedural ones where there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Image
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation import procedural_textures as textures
from feature_matcher_ros.images import to_grey

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_MIN_SIDE_PX = 64
_LOG = logging.getLogger(__name__)


def find_photographs(folder: Path) -> list[Path]:
    """All image files of a folder and the folders in it, in order of their names.

    Files that do not begin as an image does are left out and counted in the log.

    Raises:
        SourceError: the folder is missing, or no image in it can be read.
    """
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder} of images to train on: give an existing one.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    readable = [path for path in paths if cv2.haveImageReader(str(path))]
    if not readable:
        found = f"none of its {len(paths)} images can be read" if paths else "it holds no image"
        raise SourceError(f"{folder} cannot be trained on, as {found}: give a folder of JPEG or PNG photographs.")
    if len(readable) < len(paths):
        _LOG.warning(
            "%d of %d images in %s cannot be read and are left out", len(paths) - len(readable), len(paths), folder
        )
    return readable


def read_photograph(path: Path) -> Image:
    """Grey values (H, W).

    Raises:
        SourceError: the file is damaged, or smaller than training can use.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None or min(image.shape) < _MIN_SIDE_PX:
        size = "it is damaged" if image is None else f"its {image.shape[1]}x{image.shape[0]} pixels are too few"
        raise SourceError(f"{path} cannot be trained on, as {size}: remove it from the folder.")
    return np.asarray(image, np.uint8)


def procedural_photograph(seed: int, size: tuple[int, int] = (640, 480)) -> Image:
    """Grey values (height, width) made of numbers alone: leaves, noise, bricks, print; the same for the same seed."""
    rng = np.random.default_rng(seed)
    width, height = size
    makers = (textures.dead_leaves, textures.poster, textures.bricks, textures.planks, textures.plaster, textures.rug)
    base = makers[rng.integers(len(makers))](width, height, rng)
    for _ in range(int(rng.integers(0, 6))):
        maker = makers[rng.integers(2)]
        part = maker(int(width * rng.uniform(0.15, 0.5)), int(height * rng.uniform(0.15, 0.5)), rng)
        textures.paste(base, part, int(width * rng.uniform(0.0, 0.8)), int(height * rng.uniform(0.0, 0.8)))
    return to_grey(base)
