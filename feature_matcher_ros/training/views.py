"""Views of one scene, each of which knows where in the scene its points lie, so that any two of them make a pair.

A scene is either a flat photograph or a rendered room. Both are described alike: every pixel sees a scene
point (3,), and a view has a projection (3, 4) with ``pixel ~ projection @ (point, 1)``. For a photograph the
scene points are its own pixels with a third coordinate of 0, so that the projection holds a homography.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Features, Float, Image, Pixels

ScenePoints = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image of a scene, before points are sought in it."""

    image: Image  # (H, W) grey
    projection: Float  # (3, 4), scene points to pixels
    locate: Callable[[Pixels], ScenePoints]  # pixels (N, 2) to the scene points (N, 3) there; NaN where unknown


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The points found in an image of a scene, and where in the scene they lie."""

    features: Features
    projection: Float  # (3, 4)
    scene_points: ScenePoints  # (N, 3); NaN where unknown, as on the outline of an object


def project(scene_points: ScenePoints, projection: Float, image_size: tuple[int, int]) -> Pixels:
    """Where a view (width, height) shows scene points (N, 3): pixels (N, 2).

    NaN where the point is unknown, infinite where it lies behind the camera or outside the image.
    """
    homogeneous = scene_points.astype(np.float64) @ projection[:, :3].T + projection[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = homogeneous[:, :2] / homogeneous[:, 2:]
        inside = (pixels > -0.5).all(axis=1) & (pixels < np.array(image_size) - 0.5).all(axis=1)
        inside &= homogeneous[:, 2] > 0.0
    pixels[~inside] = np.inf
    pixels[np.isnan(scene_points).any(axis=1)] = np.nan
    return pixels.astype(np.float32)


def best_points(view: View, count: int | None = None) -> View:
    """The first points, which are the best ones, or all of them; with descriptors in single precision."""
    features = view.features
    assert features.scales is not None and features.orientations is not None
    descriptors = features.descriptors[:count]
    chosen = replace(
        features,
        keypoints=features.keypoints[:count],
        keypoint_scores=features.keypoint_scores[:count],
        descriptors=descriptors if descriptors.dtype == np.uint8 else descriptors.astype(np.float32),
        scales=features.scales[:count],
        orientations=features.orientations[:count],
    )
    return replace(view, features=chosen, scene_points=view.scene_points[:count])
