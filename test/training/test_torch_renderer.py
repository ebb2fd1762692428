"""The renderer of torch against the one of NumPy and OpenCV, which is tested against a slow ray caster."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.evaluation.scene_renderer import Quad, RayGrid, Scene, render_view  # noqa: E402
from feature_matcher_ros.training import rendered_scenes  # noqa: E402
from feature_matcher_ros.training.photographs import procedural_photograph  # noqa: E402
from feature_matcher_ros.training.rendered_scenes import draw_photographs, rendered_pictures  # noqa: E402
from feature_matcher_ros.training.torch_renderer import TorchRenderer  # noqa: E402


def test_views_of_a_room_are_those_of_the_other_renderer() -> None:
    rng = np.random.default_rng(4)
    photographs = draw_photographs([procedural_photograph(number) for number in range(8)], rng)
    scene = Scene(rendered_scenes._random_room(photographs, rng))
    grid = RayGrid(rendered_scenes._random_camera((320, 240), rng))
    render = TorchRenderer(scene, grid, "cpu")
    for heading in (0.3, 2.0, 4.4):
        pose = rendered_scenes._looking(np.array([1.7, 1.6, 1.2]), heading, 0.1, -0.05)
        found, expected = render(pose), render_view(scene, grid, pose)
        same = found.quad_index == expected.quad_index
        assert same.mean() > 0.999  # where two meet, rounding decides
        np.testing.assert_allclose(found.depth_m[same], expected.depth_m[same], rtol=1e-4)
        difference = np.abs(found.image[same].astype(int) - expected.image[same])
        assert difference.mean() < 0.6 and np.percentile(difference, 99) <= 3
        assert expected.image.std() > 20 and found.image.dtype == expected.image.dtype


def test_where_nothing_is_there_is_neither_colour_nor_depth() -> None:
    """A wall that fills the left half of what lies ahead, and is not to be seen from a camera that looks back."""
    texture = np.full((8, 8), 200, np.uint8)
    scene = Scene([Quad(np.array([-9.0, -9.0, 2.0]), np.array([9.0, 0, 0]), np.array([0, 18.0, 0]), texture)])
    grid = RayGrid(rendered_scenes._random_camera((64, 48), np.random.default_rng(0)))
    render = TorchRenderer(scene, grid, "cpu")
    ahead, back = render(np.eye(4)), render(np.diag([-1.0, 1.0, -1.0, 1.0]))
    assert (ahead.quad_index[:, :32] == 0).all() and (ahead.quad_index[:, 32:] == -1).all()
    assert (ahead.image[:, :31] == 200).all() and (ahead.image[:, 33:] == 0).all()
    np.testing.assert_allclose(ahead.depth_m[:, :32], 2.0, rtol=1e-6)
    assert np.isnan(ahead.depth_m[:, 32:]).all()
    assert (back.quad_index == -1).all() and (back.image == 0).all() and np.isnan(back.depth_m).all()


@pytest.mark.gpu
def test_a_gpu_makes_the_pictures_of_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    made = []
    for device in ("cpu", "cuda"):
        rng = np.random.default_rng(6)
        photographs = draw_photographs([procedural_photograph(number) for number in range(8)], rng)
        made.append(rendered_pictures(photographs, 3, (320, 240), rng, device))
    for expected, found in zip(*made, strict=True):
        np.testing.assert_array_equal(found.projection, expected.projection)
        assert np.abs(found.image.astype(int) - expected.image).mean() < 2.0
