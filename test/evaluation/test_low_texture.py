"""Where an image shows little, on images of which that is known, and matches counted there by hand."""

from __future__ import annotations

import re

import cv2
import numpy as np
from command_line import feature_matcher
from image_pairs_scene import K, write_pairs

from feature_matcher_ros.datatypes import Camera, Matches
from feature_matcher_ros.evaluation.low_texture import LowTexture, low_texture_mask, low_texture_matches
from feature_matcher_ros.evaluation.pair_sets import load_pairs
from feature_matcher_ros.geometry import pose_from


def image_of_thirds() -> np.ndarray:
    """Strong texture, weak texture, and nothing but noise, from left to right, each 100 pixels wide."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (240, 300)).astype(np.float32), (0, 0), 2.0) - 127.0
    image = 127.0 + texture * np.repeat([4.0, 1.0, 0.0], 100) + rng.normal(0.0, 1.0, (240, 300))
    return image.clip(0, 255).astype(np.uint8)


def test_the_third_that_shows_least_is_found_whatever_the_contrast() -> None:
    image = image_of_thirds()
    for picture in (image, (image // 3 + 40).astype(np.uint8)):
        mask = low_texture_mask(picture)
        assert abs(np.mean(mask > 0) - 1 / 3) < 0.01
        assert np.mean(mask[:, 215:] > 0) > 0.99
        assert np.mean(mask[:, :185] > 0) < 0.01
    assert low_texture_mask(np.full((48, 64), 90, np.uint8)).all()  # what shows nothing shows little


def test_matches_are_counted_where_texture_is_low_and_on_true_lines(tmp_path) -> None:
    """The camera moves to the right, so that epipolar lines are rows."""
    (pair,) = load_pairs(write_pairs(tmp_path, [np.eye(4)], [pose_from(np.eye(3), [-0.1, 0.0, 0.0])]))
    assert isinstance(pair.camera0, Camera) and np.array_equal(pair.camera0.K, K)
    points0 = np.array([[50.0, 60.0], [250.0, 60.0], [260.0, 90.0], [270.0, 120.0]], np.float32)
    points1 = points0 - np.array([[5.0, 0.0], [6.0, 0.0], [7.0, 20.0], [8.0, 1.0]], np.float32)
    matches = Matches(points0, points1, np.ones(4, np.float32))
    image0 = np.pad(image_of_thirds(), ((0, 0), (0, 20)), mode="edge")
    assert low_texture_matches(pair, image0, matches, 1e-4) == LowTexture(3, 2)
    assert low_texture_matches(pair, image0, matches, 1e-6) == LowTexture(3, 1)


def test_evaluate_prints_both_counts(tmp_path, capsys) -> None:
    motion = pose_from(np.eye(3), [0.4, 0.05, 0.0])
    path = write_pairs(tmp_path, [motion], [motion])
    code, out, _ = feature_matcher(capsys, "evaluate", path, "--matcher", "mutual_nearest")
    assert code == 0 and "matches where texture is low, mean" in out and "of these with epipolar error < 0.0001" in out
    numbers = [float(line.split("│")[2]) for line in out.splitlines() if "texture is low" in line or "of these" in line]
    assert numbers[0] >= numbers[1] > 0


def test_two_matchers_are_drawn_one_above_the_other(tmp_path, capsys) -> None:
    """Texture is weak in the upper part of the images, which are the same but for a shift."""
    rng = np.random.default_rng(1)
    scene = cv2.GaussianBlur(rng.integers(0, 256, (240, 340)).astype(np.float32), (0, 0), 1.5)
    scene[:110] = 127.0 + 0.4 * (scene[:110] - 127.0)
    for name, left in (("a.png", 0), ("b.png", 16)):
        cv2.imwrite(str(tmp_path / name), scene[:, left : left + 320].astype(np.uint8))
    picture = tmp_path / "both.png"
    words = ["match", tmp_path / "a.png", tmp_path / "b.png", "-m", "mutual_nearest", "--against", "lightglue"]
    code, out, _ = feature_matcher(capsys, *words, "-o", picture)
    found = re.findall(r"^(\w+): (\d+) matches on epipolar lines where texture is low, (\d+) everywhere$", out, re.M)
    assert code == 0 and [name for name, _, _ in found] == ["mutual_nearest", "lightglue"]
    assert all(0 < int(low) < 0.4 * int(everywhere) for _, low, everywhere in found)
    drawn = cv2.imread(str(picture))
    assert drawn.shape == (480, 644, 3)
    outline = (drawn == (0, 220, 255)).all(axis=2)
    assert outline[:100, :320].any() and not outline[130:200, :320].any() and outline[240:340, :320].any()
