"""Views for networks without a detector: the image itself, and where in the scene its cells and some pixels lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float, Image, Pixels
from feature_matcher_ros.images import image_size
from feature_matcher_ros.matchers.detector_free import cell_places
from feature_matcher_ros.models.dense_config import CELL_PX
from feature_matcher_ros.training.views import Picture, ScenePoints

NUM_WINDOWS = 128  # of a view, whose pixels are located: 100 kB of scene points
WINDOW_PIXELS = CELL_PX**2


@dataclass(frozen=True, slots=True, eq=False)
class DenseView:
    """An image of a scene with L cells; the pixels of F of them are located too."""

    image: Image  # (H, W) grey
    projection: Float  # (3, 4), scene points to pixels
    cell_points: ScenePoints  # (L, 3), of the places of the cells, row by row; NaN where unknown
    windows: NDArray[np.int32]  # (F,), numbers of cells
    window_points: ScenePoints  # (F, 64, 3), of the pixels of the windows of these cells; NaN where unknown

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return image_size(self.image)

    @property
    def columns(self) -> int:
        """Cells in a row."""
        return self.size[0] // CELL_PX


def dense_view(picture: Picture, rng: np.random.Generator) -> DenseView:
    """Locate the cells of a picture, and the pixels of random ones of them."""
    width, height = image_size(picture.image)
    columns, rows = width // CELL_PX, height // CELL_PX
    cell_points = picture.locate(cell_places(np.arange(columns * rows), columns))
    known = np.flatnonzero(~np.isnan(cell_points).any(axis=1) & _is_inner(columns, rows))
    windows = np.sort(rng.permutation(known)[:NUM_WINDOWS]).astype(np.int32)
    pixels = cell_places(windows, columns)[:, None] + window_offsets()
    window_points = picture.locate(pixels.reshape(-1, 2)).reshape(len(windows), WINDOW_PIXELS, 3)
    return DenseView(picture.image, picture.projection, cell_points, windows, window_points)


def window_offsets() -> Pixels:
    """From the place of a cell to the pixels (64, 2) of its window."""
    numbers = np.arange(WINDOW_PIXELS)
    return np.column_stack((numbers % CELL_PX, numbers // CELL_PX)).astype(np.float32) - (CELL_PX - 1) / 2


def _is_inner(columns: int, rows: int) -> NDArray[np.bool_]:
    """Cells (L,) whose windows lie within the image."""
    row, column = np.divmod(np.arange(columns * rows), columns)
    return np.asarray((row > 0) & (column > 0))


def dense_arrays(view: DenseView) -> dict[str, np.ndarray]:
    """A view as a file holds it."""
    return {name: getattr(view, name) for name in DENSE_NAMES}


def dense_from_arrays(arrays: Mapping[str, np.ndarray]) -> DenseView:
    """The reverse of ``dense_arrays``."""
    return DenseView(**{name: arrays[name] for name in DENSE_NAMES})


DENSE_NAMES = ("image", "projection", "cell_points", "windows", "window_points")
