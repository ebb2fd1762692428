"""Views of flat and rendered scenes against their own images, and their labels against loops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.config import ExtractorConfig  # noqa: E402
from feature_matcher_ros.errors import OutputError, SourceError  # noqa: E402
from feature_matcher_ros.training import flat_scenes, rendered_scenes  # noqa: E402
from feature_matcher_ros.training.config import DataConfig  # noqa: E402
from feature_matcher_ros.training.flat_scenes import flat_pictures  # noqa: E402
from feature_matcher_ros.training.ground_truth import IGNORED, UNMATCHABLE, label_pairs  # noqa: E402
from feature_matcher_ros.training.photographs import (  # noqa: E402
    find_photographs,
    procedural_photograph,
    read_photograph,
)
from feature_matcher_ros.training.photometric import random_exposure  # noqa: E402
from feature_matcher_ros.training.rendered_scenes import draw_photographs, rendered_pictures  # noqa: E402
from feature_matcher_ros.training.view_store import POINT_VIEWS, ViewStore, make_views  # noqa: E402
from feature_matcher_ros.training.views import Picture, project  # noqa: E402

SIZE = (320, 240)
TINY = DataConfig(ExtractorConfig(max_keypoints=64), SIZE, num_scenes=3, rendered_share=0.34, views_per_scene=2)


def pictures(kind: str, monkeypatch: pytest.MonkeyPatch) -> list[Picture]:
    """Three views of a scene, as they are before light and sensor."""
    for module in (flat_scenes, rendered_scenes):
        monkeypatch.setattr(module, "random_exposure", lambda image, rng: image)
    rng = np.random.default_rng(3)
    if kind == "flat":
        return flat_pictures(procedural_photograph(5), 3, SIZE, rng)
    return rendered_pictures(draw_photographs([procedural_photograph(i) for i in range(8)], rng), 3, SIZE, rng)


@pytest.mark.parametrize("kind", ["flat", "rendered"])
def test_the_same_place_looks_the_same_in_every_view(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = pictures(kind, monkeypatch)
    pixels = np.random.default_rng(0).uniform(2, (SIZE[0] - 3, SIZE[1] - 3), (4000, 2)).astype(np.float32)
    compared = 0
    for other in others:
        seen = project(first.locate(pixels), other.projection, SIZE)
        # Only what is seen both ways: no occlusion, and no place that is unknown.
        returned = project(other.locate(np.nan_to_num(seen, posinf=-1.0)), first.projection, SIZE)
        both = np.linalg.norm(returned - pixels, axis=1) < 0.05
        compared += int(both.sum())
        grey0, grey1 = read(first.image, pixels[both]), read(other.image, seen[both])
        assert np.corrcoef(grey0, grey1)[0, 1] > 0.9
        assert np.median(np.abs(grey0 - grey1)) < 8.0
    assert compared > 1000


def read(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    return cv2.remap(smooth, pixels[:, :1], pixels[:, 1:], cv2.INTER_LINEAR).ravel().astype(float)


def test_a_hidden_place_is_not_a_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_, last = pictures("rendered", monkeypatch)
    pixels = np.random.default_rng(1).uniform(2, (SIZE[0] - 3, SIZE[1] - 3), (3000, 2)).astype(np.float32)
    seen = project(first.locate(pixels), last.projection, SIZE)
    inside = np.isfinite(seen).all(axis=1)
    depth_claimed = depth_of(first.locate(pixels[inside]), last.projection)
    depth_seen = depth_of(last.locate(seen[inside]), last.projection)
    hidden = depth_claimed > 1.1 * depth_seen
    assert hidden.sum() > 20  # the scene has occlusion
    keypoints0 = torch.from_numpy(pixels[inside][hidden])[None]
    keypoints1 = torch.from_numpy(seen[inside][hidden])[None]
    back = torch.from_numpy(project(last.locate(seen[inside][hidden]), first.projection, SIZE))[None]
    labels = label_pairs(keypoints0, keypoints1, keypoints1.clone(), back)
    exact = labels.partner0[0] == torch.arange(int(hidden.sum()))
    assert exact.float().mean() < 0.1  # parallax tells most of them apart


def depth_of(points: np.ndarray, projection: np.ndarray) -> np.ndarray:
    return points @ projection[2, :3] + projection[2, 3]


def test_projection_says_why_a_point_is_not_seen() -> None:
    camera = np.array([[100.0, 0, 50, 0], [0, 100.0, 40, 0], [0, 0, 1, 0]])
    points = np.array([[0, 0, 2], [0, 0, -2], [5, 0, 2], [np.nan, 0, 0]], np.float32)
    pixels = project(points, camera, (100, 80))
    assert pixels[0].tolist() == [50, 40]
    assert np.isposinf(pixels[1:3]).all()
    assert np.isnan(pixels[3]).all()


def test_labels_agree_with_loops() -> None:
    rng = np.random.default_rng(7)
    keypoints0 = rng.uniform(0, 60, (40, 2)).astype(np.float32)
    keypoints1 = (keypoints0[rng.permutation(40)][:33] + rng.normal(0, 2.0, (33, 2))).astype(np.float32)
    projected0 = (keypoints0 + rng.normal(0, 1.0, (40, 2))).astype(np.float32)
    projected1 = (keypoints1 + rng.normal(0, 1.0, (33, 2))).astype(np.float32)
    projected0[3], projected0[5], projected1[4], projected1[6] = np.nan, np.inf, np.nan, np.inf
    tensors = [torch.from_numpy(array)[None] for array in (keypoints0, keypoints1, projected0, projected1)]
    labels = label_pairs(*tensors)
    expected0, expected1 = slow_labels(keypoints0, keypoints1, projected0, projected1)
    assert labels.partner0[0].tolist() == expected0
    assert labels.partner1[0].tolist() == expected1
    assert {UNMATCHABLE, IGNORED} < set(expected0)


def slow_labels(kp0: np.ndarray, kp1: np.ndarray, to1: np.ndarray, to0: np.ndarray) -> tuple[list[int], list[int]]:
    def distance(i: int, j: int) -> tuple[float, bool]:
        one_way, other_way = math.dist(to1[i], kp1[j]), math.dist(to0[j], kp0[i])
        known = not (math.isnan(one_way) or math.isnan(other_way))
        return max(0.0 if math.isnan(d) else d for d in (one_way, other_way)), known

    table = [[distance(i, j) for j in range(len(kp1))] for i in range(len(kp0))]
    partners = []
    for rows, cols, swapped, known in ((len(kp0), len(kp1), False, to1), (len(kp1), len(kp0), True, to0)):

        def at(a: int, b: int, swapped: bool = swapped) -> tuple[float, bool]:
            return table[b][a] if swapped else table[a][b]

        def nearest_certain(a: int, count: int, flip: bool) -> int:
            values = [(at(b, a) if flip else at(a, b)) for b in range(count)]
            return min(range(count), key=lambda b: values[b][0] if values[b][1] else math.inf)

        result = []
        for a in range(rows):
            b = nearest_certain(a, cols, False)
            value, certain = at(a, b)
            if certain and value < 3.0 and nearest_certain(b, rows, True) == a:
                result.append(b)
            elif not np.isnan(known[a]).any() and all(at(a, c)[0] > 5.0 for c in range(cols)):
                result.append(UNMATCHABLE)
            else:
                result.append(IGNORED)
        partners.append(result)
    return partners[0], partners[1]


def test_views_are_the_same_again_and_survive_the_disk(tmp_path: Path) -> None:
    store = ViewStore(tmp_path, TINY, POINT_VIEWS)
    store.prepare(num_processes=1)
    for number in range(len(store)):
        for stored, made in zip(store.read(number), make_views(TINY, (), number), strict=True):
            np.testing.assert_array_equal(stored.features.keypoints, made.features.keypoints)
            np.testing.assert_array_equal(stored.scene_points, made.scene_points)
            np.testing.assert_allclose(stored.features.descriptors, made.features.descriptors, atol=5e-4)
    damaged = next(tmp_path.rglob("scene_000001.npz"))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(SourceError, match="delete the file"):
        store.read(1)


def test_views_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose a writable folder"):
        ViewStore(tmp_path / "file", TINY, POINT_VIEWS).prepare()


def test_a_damaged_photograph_is_told_before_all_scenes_are_made(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), procedural_photograph(0, (320, 240)))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    cv2.imwrite(str(tmp_path / "b.png"), procedural_photograph(0, (320, 240)))
    store = ViewStore(tmp_path, replace(TINY, num_scenes=400), POINT_VIEWS, find_photographs(tmp_path))
    with pytest.raises(SourceError, match=r"a\.png cannot be trained on, as it is damaged"):
        store.prepare(1)
    assert len([*tmp_path.rglob("scene_*.npz")]) < 20


def test_light_and_sensor_change_the_image_and_not_its_size() -> None:
    image = procedural_photograph(1, (96, 64))
    exposed = [random_exposure(image, np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3, 4, 5, 6, 7)]
    assert {(e.shape, e.dtype.name) for e in exposed} == {((64, 96), "uint8")}
    np.testing.assert_array_equal(exposed[0], exposed[1])
    assert all((e != exposed[0]).mean() > 0.5 for e in exposed[2:])


def test_folders_to_train_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        find_photographs(tmp_path / "missing")
    with pytest.raises(SourceError, match="holds no image"):
        find_photographs(tmp_path)
    (tmp_path / "notes.jpg").write_text("not an image")
    with pytest.raises(SourceError, match="none of its 1 images can be read"):
        find_photographs(tmp_path)
    (tmp_path / "deeper").mkdir()
    cv2.imwrite(str(tmp_path / "deeper" / "good.png"), procedural_photograph(0, (80, 70)))
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((20, 20), np.uint8))
    assert [path.name for path in find_photographs(tmp_path)] == ["good.png", "small.png"]
    assert "1 of 3 images" in caplog.text
    assert read_photograph(tmp_path / "deeper" / "good.png").shape == (70, 80)
    with pytest.raises(SourceError, match="too few"):
        read_photograph(tmp_path / "small.png")
