"""Writes datasets of a few small images whose content tells which frame and camera they belong to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48
CALIBRATION = f"width: {WIDTH}\nheight: {HEIGHT}\nK: [50, 0, 31.5, 0, 50, 23.5, 0, 0, 1]\n"
RIGHT = (
    f"right:\n  width: {WIDTH}\n  height: {HEIGHT}\n  K: [51, 0, 31.5, 0, 51, 23.5, 0, 0, 1]\n"
    "  right_from_left: [1, 0, 0, -0.1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\n"
)


def write_image(path: Path, value: int = 100, width: int = WIDTH, height: int = HEIGHT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))
    return path


def write_depth(path: Path, value: int = 1000, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A map of one value, except that the top-left pixel is 0 and the one below it is 65535."""
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = np.full((height, width), value, np.uint16)
    depth[0, 0], depth[1:2, 0] = 0, 65535
    assert cv2.imwrite(str(path), depth)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_image_folder(folder: Path, count: int = 5, calibration: str = CALIBRATION) -> Path:
    """Images 0 ... count - 1 whose grey is ten times their number."""
    for number in range(count):
        write_image(folder / f"{number}.png", 10 * number)
    write_text(folder / "calibration.yaml", calibration)
    return folder


def write_stereo_folder(folder: Path, calibration: str = CALIBRATION + RIGHT) -> Path:
    for number in range(3):
        write_image(folder / "left" / f"left_{number:03d}.png", 10 * number)
        write_image(folder / "right" / f"right_{number:03d}.png", 10 * number + 5)
    write_text(folder / "calibration.yaml", calibration)
    return folder


def write_rgbd_folder(folder: Path, calibration: str = CALIBRATION, width: int = WIDTH, height: int = HEIGHT) -> Path:
    for number in range(3):
        write_image(folder / "rgb" / f"{number}.png", 10 * number)
        write_depth(folder / "depth" / f"{number}.png", 1000 + number, width, height)
    write_text(folder / "calibration.yaml", calibration)
    return folder
