"""Small, deterministic stand-ins for matchers, runtimes and cameras; each is a real implementation of its protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import (
    Camera,
    DepthView,
    Features,
    Float,
    Frame,
    Image,
    Matches,
    Pixels,
    StereoView,
)
from feature_matcher_ros.geometry import invert_pose, pose_from, project_points, transform_points
from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.runtime import Tensor

_BLOB_RADIUS_PX = 4
_FRAME_INTERVAL_NS = 50_000_000


def pinhole(width: int = 640, height: int = 480, focal_px: float = 500.0) -> Camera:
    """An undistorted camera whose axis passes through the middle of the image."""
    K = np.array([[focal_px, 0.0, (width - 1) / 2], [0.0, focal_px, (height - 1) / 2], [0.0, 0.0, 1.0]])
    return Camera(K, width, height)


def random_points(num_points: int = 600, seed: int = 0) -> Float:
    """Points (N, 3) in a room of 8 m x 5 m x 6 m, 2 m in front of the origin and farther."""
    return np.random.default_rng(seed).uniform([-4.0, -2.5, 2.0], [4.0, 2.5, 8.0], size=(num_points, 3))


@dataclass(frozen=True, slots=True, eq=False)
class PointScene:
    """Points in the world, drawn as blobs of their own grey values, seen from a number of camera poses.

    The first four pixels of each image hold the number of the pose, by which ``FakeMatcher`` knows it. A
    pose of None is a black frame in which nothing is seen.
    """

    points: Float  # (P, 3), world
    camera: Camera
    world_from_cam: Sequence[Float | None]
    right_from_left: Float | None = None  # frames get a right image
    with_depth: bool = False  # frames get a registered depth map, NaN between the blobs

    def frame(self, number: int) -> Frame:
        """The view from pose ``number``, 50 ms after the one before."""
        pose = self.world_from_cam[number]
        stereo = depth = None
        if self.right_from_left is not None and pose is not None:
            right_pose = pose @ invert_pose(self.right_from_left)
            stereo = StereoView(self._draw(right_pose)[0], self.camera, self.right_from_left)
        image, depth_m = self._draw(pose)
        image.reshape(-1)[:4] = np.frombuffer(number.to_bytes(4, "big"), dtype=np.uint8)
        if self.with_depth:
            depth = DepthView(depth_m, self.camera, np.eye(4))
        return Frame(1_000_000_000 + number * _FRAME_INTERVAL_NS, image, self.camera, stereo=stereo, depth=depth)

    def project(self, number: int) -> tuple[Pixels, np.ndarray]:
        """Pixels (N, 2) and numbers (N,) of the points seen from pose ``number``."""
        pose = self.world_from_cam[number]
        if pose is None:
            return np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64)
        pixels, _, seen = self._visible(pose)
        return pixels[seen].astype(np.float32), np.flatnonzero(seen)

    def _visible(self, pose: Float) -> tuple[Float, Float, np.ndarray]:
        in_camera = transform_points(invert_pose(pose), self.points)
        pixels = project_points(in_camera, self.camera)
        margin = _BLOB_RADIUS_PX
        limits = np.array([self.camera.width, self.camera.height]) - 1 - margin
        with np.errstate(invalid="ignore"):
            seen = np.all((pixels >= margin) & (pixels <= limits), axis=1)
        return pixels, in_camera[:, 2], seen

    def _draw(self, pose: Float | None) -> tuple[Image, np.ndarray]:
        height, width = self.camera.height, self.camera.width
        canvas = np.full((height, width), 100.0)
        depth_m = np.full((height, width), np.nan, dtype=np.float32)
        if pose is None:
            return np.zeros((height, width), dtype=np.uint8), depth_m
        pixels, depths, seen = self._visible(pose)
        greys = np.random.default_rng(7).choice([-1.0, 1.0], len(self.points)) * np.linspace(50, 140, len(self.points))
        for index in np.flatnonzero(seen)[np.argsort(-depths[seen])]:
            x, y = np.rint(pixels[index]).astype(int)
            block = np.s_[y - _BLOB_RADIUS_PX : y + _BLOB_RADIUS_PX + 1, x - _BLOB_RADIUS_PX : x + _BLOB_RADIUS_PX + 1]
            rows, columns = np.mgrid[block]
            squared = (columns - pixels[index, 0]) ** 2 + (rows - pixels[index, 1]) ** 2
            canvas[block] += greys[index] * np.exp(-squared / (2 * 1.5**2))
            depth_m[block] = depths[index]
        return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), depth_m


class FakeMatcher:
    """Matches the true projections of a ``PointScene``, with noise and outliers where asked for.

    It knows a frame by the number in its first pixels. Detector-free, it leaves ``indices`` away.
    """

    def __init__(
        self,
        scene: PointScene,
        noise_px: float = 0.0,
        outlier_ratio: float = 0.0,
        detector_free: bool = False,
        seed: int = 0,
    ) -> None:
        self._scene = scene
        self._noise_px = noise_px
        self._outlier_ratio = outlier_ratio
        self._detector_free = detector_free
        self._seed = seed
        self.num_extracted = 0
        self.num_matched = 0

    @property
    def name(self) -> str:
        return "fake"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        """True pixels with noise that depends on the frame alone; descriptors (N, 1) hold the points' numbers."""
        self.num_extracted += 1
        number = int.from_bytes(image.reshape(-1)[:4].tobytes(), "big")
        pixels, points = self._scene.project(number)
        if mask is not None:
            columns, rows = np.rint(pixels).astype(int).T
            pixels, points = pixels[mask[rows, columns] > 0], points[mask[rows, columns] > 0]
        noise = np.random.default_rng((self._seed, number)).normal(0.0, 1.0, pixels.shape) * self._noise_px
        return Features(
            keypoints=(pixels + noise).astype(np.float32),
            keypoint_scores=np.ones(len(pixels), dtype=np.float32),
            descriptors=points.astype(np.float32)[:, None],
            image_size=(image.shape[1], image.shape[0]),
        )

    def match(self, features0: Features, features1: Features) -> Matches:
        self.num_matched += 1
        _, index0, index1 = np.intersect1d(
            features0.descriptors[:, 0], features1.descriptors[:, 0], assume_unique=True, return_indices=True
        )
        index1 = self._with_outliers(index1)
        indices = np.stack([index0, index1], axis=1).astype(np.int32)
        scores = np.full(len(indices), 0.9, dtype=np.float32)
        points0, points1 = features0.keypoints[index0], features1.keypoints[index1]
        return Matches(points0, points1, scores, None if self._detector_free else indices)

    def _with_outliers(self, index1: np.ndarray) -> np.ndarray:
        """Pass the partners of some matches round in a circle."""
        num_outliers = round(self._outlier_ratio * len(index1))
        if num_outliers < 2:
            return index1
        wrong = np.random.default_rng((self._seed, len(index1))).choice(len(index1), num_outliers, replace=False)
        shuffled = index1.copy()
        shuffled[wrong] = np.roll(index1[wrong], 1)
        return shuffled


class FakeRuntime:
    """Executes a Python function in place of a graph, and keeps what it was given."""

    def __init__(self, spec: GraphSpec, function: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> None:
        self._spec = spec
        self._function = function
        self.calls: list[dict[str, Tensor]] = []

    @property
    def name(self) -> str:
        return "fake"

    @property
    def precision(self) -> str:
        return "float32"

    @property
    def spec(self) -> GraphSpec:
        return self._spec

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Check names, ranks, fixed sizes and types against the spec on the way in and out."""
        self.calls.append(dict(inputs))
        _require(inputs, self._spec.inputs)
        outputs = self._function(inputs)
        _require(outputs, self._spec.outputs)
        return outputs


def _require(tensors: Mapping[str, Tensor], specs: Sequence) -> None:
    assert set(tensors) == {spec.name for spec in specs}
    for spec in specs:
        tensor = tensors[spec.name]
        assert tensor.dtype.name == spec.dtype, f"{spec}: {tensor.dtype}"
        assert len(tensor.shape) == len(spec.shape), f"{spec}: {tensor.shape}"
        assert all(isinstance(size, str) or size == got for size, got in zip(spec.shape, tensor.shape, strict=True))


def sideways_poses(num_poses: int, step_m: float = 0.05) -> list[Float]:
    """World-from-camera poses that move to the right and turn a little."""
    poses = []
    for number in range(num_poses):
        angle = 0.01 * number
        rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        poses.append(pose_from(rotation, [step_m * number, 0.0, 0.01 * number]))
    return poses
