"""Pictures of an invented scene from any place."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Float, Image
from feature_matcher_ros.geometry import invert_pose

K = np.array([[300.0, 0.0, 159.5], [0.0, 300.0, 119.5], [0.0, 0.0, 1.0]])
SIZE = (320, 240)


def texture(seed: int) -> Image:
    noise = np.random.default_rng(seed).integers(0, 256, (256, 256), dtype=np.uint8)
    return cv2.GaussianBlur(cv2.resize(noise, (1024, 1024), interpolation=cv2.INTER_CUBIC), (0, 0), 1.5)


def render(cam_from_world: Float) -> Image:
    """Two textured walls that face the camera, the nearer one covering the left half of the further one."""
    u, v = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1)
    world_from_cam = invert_pose(cam_from_world)
    origin, directions = world_from_cam[:3, 3], rays @ world_from_cam[:3, :3].T
    picture = np.full(u.shape, 128, np.uint8)
    for depth, is_near in ((6.0, False), (3.0, True)):
        points = origin + directions * ((depth - origin[2]) / directions[..., 2])[..., None]
        texels = (points[..., :2] * 120.0 + 512.0).astype(np.float32)
        wall = cv2.remap(texture(int(depth)), texels[..., 0], texels[..., 1], cv2.INTER_LINEAR)
        hit = points[..., 0] < 0.0 if is_near else np.ones(u.shape, bool)
        picture[hit] = wall[hit]
    return picture


def write_pairs(folder: Path, motions: list[Float], told: list[Float]) -> Path:
    """Write images of motions, and a list that tells these as the truth."""
    entries = []
    cv2.imwrite(str(folder / "0.png"), render(np.eye(4)))
    for number, (motion, truth) in enumerate(zip(motions, told, strict=True), start=1):
        cv2.imwrite(str(folder / f"{number}.png"), render(motion))
        entries.append(
            {"img0": "0.png", "img1": f"{number}.png", "K0": K.tolist(), "K1": K.tolist()}
            | {"T_cam1_from_cam0": truth.tolist()}
        )
    (folder / "pairs.json").write_text(json.dumps(entries))
    return folder / "pairs.json"
