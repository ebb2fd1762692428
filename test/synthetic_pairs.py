"""Two-view problems with a known answer: what a camera sees before and after a known motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, Float, MetricPoints, MotionType, Pixels, ScaleSource
from feature_matcher_ros.geometry import pose_from, project_points, rotation_from_vector, transform_points

PINHOLE = Camera(K=np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]]), width=640, height=480)
STEREO_BASELINE_M = 0.12


@dataclass(frozen=True)
class Settings:
    """What a problem is drawn from."""

    noise_px: float = 0.5
    tail_px: float = 0.0  # of further noise, of Student's t distribution with three degrees of freedom
    outlier_ratio: float = 0.3
    num_matches: tuple[int, int] = (300, 1000)
    parallax_px: tuple[float, float] = (3.5, 40.0)  # median, of the true matches
    max_rotation_deg: float = 12.0
    camera: Camera = PINHOLE


@dataclass(frozen=True)
class Problem:
    """One pair of views."""

    motion_type: MotionType
    points0: Pixels
    points1: Pixels
    camera: Camera
    cam1_from_cam0: Float
    true_matches: NDArray[np.bool_]  # (M,)
    points3d: Float  # (M, 3), in the axes of camera 0

    @property
    def rotation(self) -> Float:
        return self.cam1_from_cam0[:3, :3]

    @property
    def direction(self) -> Float:
        translation = self.cam1_from_cam0[:3, 3]
        return translation / np.linalg.norm(translation)


def make_problem(motion_type: MotionType, seed: int, settings: Settings = Settings()) -> Problem:
    """Draw scene, motion, noise and outliers, until enough points are seen by both cameras."""
    rng = np.random.default_rng([seed, list(MotionType).index(motion_type)])
    while True:
        count = int(rng.integers(settings.num_matches[0], settings.num_matches[1] + 1))
        scene = draw_scene(motion_type, rng, 4 * count, settings.camera)
        pose = draw_motion(motion_type, rng, scene, settings)
        points0 = project_points(scene, settings.camera)
        points1 = project_points(transform_points(pose, scene), settings.camera)
        seen = np.flatnonzero(_inside(points0, settings.camera) & _inside(points1, settings.camera))
        if len(seen) >= count:
            chosen = seen[:count]
            return _observe(motion_type, pose, scene[chosen], points0[chosen], points1[chosen], rng, settings)


def draw_scene(motion_type: MotionType, rng: np.random.Generator, count: int, camera: Camera) -> Float:
    """Points (N, 3) in the axes of camera 0: one plane, a cloud, or walls with things in front."""
    pixels = rng.uniform([0, 0], [camera.width, camera.height], (count, 2))
    rays = np.concatenate([(pixels - camera.K[:2, 2]) / camera.K[0, 0], np.ones((count, 1))], axis=1)
    if motion_type is MotionType.PLANAR:
        return rays * _plane_depth(rays, rng)[:, None]
    if rng.random() < 0.5:
        return rays * np.exp(rng.uniform(np.log(1.5), np.log(12.0), count))[:, None]
    depth = np.min([_plane_depth(rays, rng) for _ in range(3)], axis=0)
    for _ in range(8):
        center, radius = rng.uniform([0, 0], [camera.width, camera.height]), rng.uniform(30, 90)
        depth = np.where(np.linalg.norm(pixels - center, axis=1) < radius, depth * rng.uniform(0.4, 0.9), depth)
    return rays * depth[:, None]


def draw_motion(motion_type: MotionType, rng: np.random.Generator, scene: Float, settings: Settings) -> Float:
    """A pose ``cam1_from_cam0`` of the wanted kind, its baseline such that the parallax is as wanted."""
    if motion_type is MotionType.STATIC:
        return np.eye(4)
    lowest = 0.5 if motion_type is MotionType.ROTATION_ONLY else 0.0
    rotation = rotation_from_vector(_unit(rng) * np.radians(rng.uniform(lowest, settings.max_rotation_deg)))
    if motion_type is MotionType.ROTATION_ONLY:
        return pose_from(rotation, np.zeros(3))
    kinds = ([1.0, 0.1, 0.1], [0.1, 0.1, 1.0], [1.0, 1.0, 1.0])  # sideways, forward, anyhow
    direction = _unit(rng) * np.array(kinds[rng.integers(3)])
    direction /= np.linalg.norm(direction)
    wanted = np.exp(rng.uniform(*np.log(settings.parallax_px)))
    median_depth = float(np.median(scene[:, 2]))
    parallax = median_parallax(pose_from(np.eye(3), direction * 0.02 * median_depth), scene, settings.camera)
    return pose_from(rotation, direction * 0.02 * median_depth * wanted / parallax)


def median_parallax(cam1_from_cam0: Float, scene: Float, camera: Camera) -> float:
    """Median displacement of the points that the translation alone causes, in pixels."""
    turned = pose_from(cam1_from_cam0[:3, :3], np.zeros(3))
    moved, still = (project_points(transform_points(pose, scene), camera) for pose in (cam1_from_cam0, turned))
    return float(np.nanmedian(np.linalg.norm(moved - still, axis=1)))


def stereo_points(problem: Problem, seed: int, noise_px: float = 0.5) -> MetricPoints:
    """What a stereo camera would measure: noisy disparity along the ray of the noisy keypoint."""
    rng = np.random.default_rng([seed, 77])
    focal_baseline = problem.camera.K[0, 0] * STEREO_BASELINE_M
    sigma = noise_px * np.sqrt(2.0)
    disparity = focal_baseline / problem.points3d[:, 2] + rng.normal(0.0, sigma, len(problem.points3d))
    nearest_px = 5.0 * sigma  # farther points say too little about lengths
    depth = np.where(disparity > nearest_px, focal_baseline / np.maximum(disparity, nearest_px), np.nan)
    normalized = (problem.points0 - problem.camera.K[:2, 2]) / np.diag(problem.camera.K)[:2]
    rays = np.concatenate([normalized, np.ones((len(depth), 1))], axis=1)
    return MetricPoints(rays * depth[:, None], depth**2 * sigma / focal_baseline, ScaleSource.STEREO)


def _observe(
    motion_type: MotionType,
    pose: Float,
    scene: Float,
    points0: Float,
    points1: Float,
    rng: np.random.Generator,
    settings: Settings,
) -> Problem:
    camera = settings.camera
    true_matches = rng.random(len(scene)) >= settings.outlier_ratio
    wrong = rng.uniform([0, 0], [camera.width, camera.height], points1.shape)
    observed0 = points0 + rng.normal(0.0, settings.noise_px, points0.shape)
    observed1 = np.where(true_matches[:, None], points1, wrong) + rng.normal(0.0, settings.noise_px, points1.shape)
    if settings.tail_px:
        observed0 += settings.tail_px / np.sqrt(3.0) * rng.standard_t(3, points0.shape)
        observed1 += settings.tail_px / np.sqrt(3.0) * rng.standard_t(3, points1.shape)
    pixels0, pixels1 = observed0.astype(np.float32), observed1.astype(np.float32)
    return Problem(motion_type, pixels0, pixels1, camera, pose, true_matches, scene)


def _plane_depth(rays: Float, rng: np.random.Generator) -> Float:
    tilt = np.radians(rng.uniform(0.0, 45.0))  # the corners of the image are another 37 degrees off the axis
    heading = rng.uniform(0.0, 2.0 * np.pi)
    normal = np.array([np.sin(tilt) * np.cos(heading), np.sin(tilt) * np.sin(heading), np.cos(tilt)])
    return rng.uniform(2.0, 6.0) * normal[2] / (rays @ normal)


def _unit(rng: np.random.Generator) -> Float:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _inside(pixels: Float, camera: Camera) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.all((pixels >= 0.0) & (pixels <= [camera.width - 1, camera.height - 1]), axis=1)
