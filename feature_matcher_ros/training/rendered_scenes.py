"""Views of random rooms whose walls and boxes bear photographs: parallax, occlusion, true depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, Float, Image, Pixels
from feature_matcher_ros.evaluation.scene_renderer import Quad, RayGrid, RenderedView, Scene, render_view
from feature_matcher_ros.geometry import invert_pose
from feature_matcher_ros.training.photometric import random_exposure
from feature_matcher_ros.training.views import Picture, ScenePoints

Rng = np.random.Generator
Render = Callable[[Float], RenderedView]  # of a scene, from a place

_NUM_BOXES = (6, 16)
_PANEL_M = 1.8  # width of a photograph on a wall
_MARGIN_M = 0.6  # between a camera and the walls
_MAX_SHARE_OF_BLACK = 0.3  # of a view, before another place is tried
_MIN_DEPTH_M = 0.35  # of the median pixel
_MAX_ATTEMPTS = 20


def rendered_pictures(
    photograph: Callable[[], Image], count: int, size: tuple[int, int], rng: Rng, device: str = "cpu"
) -> list[Picture]:
    """Images (width, height) of one random room, from places around a common one.

    ``photograph`` gives the next image to hang; a ``device`` other than the CPU renders with torch.
    """
    scene = Scene(_random_room(photograph, rng))
    camera = _random_camera(size, rng)
    render = _renderer(scene, RayGrid(camera), device)
    base = _random_place(scene, render, rng)
    pictures = []
    for number in range(count):
        reach = number / max(1, count - 1)  # from near the common place to far from it
        pose, view = _visible(render, partial(_moved, base, reach, rng))
        pictures.append(_picture(view, camera, pose, rng))
    return pictures


def _renderer(scene: Scene, grid: RayGrid, device: str) -> Render:
    if device == "cpu":
        return partial(render_view, scene, grid)
    from feature_matcher_ros.training.torch_renderer import TorchRenderer

    return TorchRenderer(scene, grid, device)


def _picture(view: RenderedView, camera: Camera, world_from_cam: Float, rng: Rng) -> Picture:
    with np.errstate(invalid="ignore"):
        inverse_depth = np.nan_to_num(1.0 / view.depth_m).astype(np.float32)
    steady = _away_from_outlines(view.quad_index)

    def locate(pixels: Pixels) -> ScenePoints:
        # Inverse depth is linear over a plane's image: reading it between pixels is exact.
        columns, rows = np.ascontiguousarray(pixels, np.float32).T
        read = cv2.remap(inverse_depth, columns[:, None], rows[:, None], cv2.INTER_LINEAR).ravel()
        rays = np.column_stack((pixels, np.ones(len(pixels)))).astype(np.float64) @ np.linalg.inv(camera.K).T
        nearest = np.clip(np.rint(pixels).astype(np.intp), 0, np.array(steady.shape[::-1]) - 1)
        known = steady[nearest[:, 1], nearest[:, 0]] & (read > 0)
        points = np.full((len(pixels), 3), np.nan)
        points[known] = rays[known] / read[known, None] @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
        return points.astype(np.float32)

    return Picture(random_exposure(view.image, rng), camera.K @ invert_pose(world_from_cam)[:3], locate)


def _away_from_outlines(quad_index: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Pixels whose neighbours show the same rectangle."""
    around = np.ones((3, 3), np.uint8)
    numbers = quad_index.astype(np.float32)
    same = cv2.dilate(numbers, around) == cv2.erode(numbers, around)
    return np.asarray(same & (quad_index >= 0))


def _random_room(photograph: Callable[[], Image], rng: Rng) -> list[Quad]:
    """Walls of panels, with boxes and tilted boards standing and hanging about."""
    room = np.array([rng.uniform(3.5, 8.0), rng.uniform(3.5, 8.0), rng.uniform(2.4, 3.5)])
    quads = []
    for corner, right, down in _faces(np.zeros(3), room):
        quads += _panelled(corner + right, -right, down, photograph)  # seen from inside
    for _ in range(int(rng.integers(*_NUM_BOXES))):
        size = rng.uniform(0.2, 1.0, 3)
        turn, _ = cv2.Rodrigues(_random_tilt(rng))
        place = rng.uniform(0.1, 0.9, 3) * room
        faces = _faces(-size / 2, size)
        quads += [Quad(place + turn @ corner, turn @ right, turn @ down, photograph()) for corner, right, down in faces]
    return quads


def _random_tilt(rng: Rng) -> Float:
    """Rotation vector: any turn about the vertical, at times tipped over."""
    upright = np.array([0.0, 0.0, rng.uniform(-np.pi, np.pi)])
    return upright + (rng.normal(0.0, 0.6, 3) if rng.random() < 0.4 else 0.0)


def _faces(low: Float, size: Float) -> list[tuple[Float, Float, Float]]:
    """Top-left corner, way to the right and way down of a box's six faces, seen from outside."""
    x, y, z = np.diag(size)
    return [
        (low + z, x, -z),
        (low + x + y + z, -x, -z),
        (low + y + z, -y, -z),
        (low + x + z, y, -z),
        (low + y + z, x, -y),
        (low, x, y),
    ]


def _panelled(corner: Float, right: Float, down: Float, photograph: Callable[[], Image]) -> list[Quad]:
    """A wall covered with photographs of about ``_PANEL_M``."""
    columns, rows = (max(1, round(float(np.linalg.norm(edge)) / _PANEL_M)) for edge in (right, down))
    return [
        Quad(corner + right * column / columns + down * row / rows, right / columns, down / rows, photograph())
        for column in range(columns)
        for row in range(rows)
    ]


def _random_camera(size: tuple[int, int], rng: Rng) -> Camera:
    focal = size[0] * rng.uniform(0.6, 1.1)
    K = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
    return Camera(K=K, width=size[0], height=size[1])


def _random_place(scene: Scene, render: Render, rng: Rng) -> Float:
    """A pose ``world_from_cam`` from which something is to be seen."""
    high = np.max([quad.corner for quad in scene.quads], axis=0)

    def place() -> Float:
        center = rng.uniform(_MARGIN_M, np.maximum(high - _MARGIN_M, _MARGIN_M + 0.1))
        return _looking(center, rng.uniform(-np.pi, np.pi), rng.normal(0.0, 0.25), rng.normal(0.0, 0.1))

    return _visible(render, place)[0]


def _moved(base: Float, reach: float, rng: Rng) -> Float:
    """Another pose near ``base``: up to 0.9 m and 30 degrees away."""
    turn, _ = cv2.Rodrigues(np.radians(30.0) * reach * rng.uniform(-1.0, 1.0, 3) * (0.5, 1.0, 0.7))
    moved = np.eye(4)
    moved[:3, :3] = turn
    moved[:3, 3] = 0.9 * reach * rng.uniform(-1.0, 1.0, 3)
    return base @ moved


def _visible(render: Render, place: Callable[[], Float]) -> tuple[Float, RenderedView]:
    """The first of some random places that is neither outside of the room nor with its face to a wall."""
    for _ in range(_MAX_ATTEMPTS):
        pose = place()
        view = render(pose)
        nothing = float(np.mean(view.quad_index < 0))
        if nothing < _MAX_SHARE_OF_BLACK and np.nanmedian(view.depth_m) > _MIN_DEPTH_M:
            break
    return pose, view


def _looking(center: Float, heading: float, pitch: float, roll: float) -> Float:
    """``world_from_cam`` with z up in the world, and x right, y down, z forward in the camera."""
    forward = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), -np.sin(pitch)])
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    axes = np.column_stack((right, np.cross(forward, right), forward))
    rolled, _ = cv2.Rodrigues(np.array([0.0, 0.0, roll]))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axes @ rolled, center
    return pose


def draw_photographs(photographs: Sequence[Image], rng: Rng) -> Callable[[], Image]:
    """One of the photographs at random, each time, whole or a part of it."""

    def draw() -> Image:
        image = photographs[int(rng.integers(len(photographs)))]
        height, width = (int(side * rng.uniform(0.5, 1.0)) for side in image.shape)
        top, left = (
            int(rng.integers(0, full - part + 1)) for full, part in zip(image.shape, (height, width), strict=True)
        )
        return image[top : top + height, left : left + width]

    return draw
