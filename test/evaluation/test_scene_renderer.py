"""The renderer against projection, against plane geometry in float64, and against a slow ray caster."""

import cv2
import numpy as np
import pytest

from feature_matcher_ros.datatypes import Camera, DistortionModel
from feature_matcher_ros.errors import ImageError
from feature_matcher_ros.evaluation.scene_renderer import Quad, RayGrid, Scene, expose, render_view
from feature_matcher_ros.geometry import pose_from, rotation_from_vector

K = np.array([[420.0, 0.0, 318.0], [0.0, 424.0, 243.0], [0.0, 0.0, 1.0]])
PINHOLE = Camera(K, 640, 480)
LENS = Camera(K, 640, 480, np.array([-0.12, 0.05, 0.001, -0.0008, 0.0]), DistortionModel.PLUMB_BOB)
OBLIQUE = pose_from(rotation_from_vector([0.35, -0.45, 0.2]), [0.7, 0.5, -0.1])


def quad_before_camera(depth, half_width, half_height, texture):
    """A rectangle facing a camera at the origin that looks along z."""
    corner = np.array([-half_width, -half_height, depth])
    return Quad(corner, np.array([2 * half_width, 0, 0]), np.array([0, 2 * half_height, 0]), texture)


def project(points, camera, world_from_cam):
    """Pixels of world points, by OpenCV alone."""
    rotation, _ = cv2.Rodrigues(world_from_cam[:3, :3].T)
    translation = -world_from_cam[:3, :3].T @ world_from_cam[:3, 3]
    distortion = camera.distortion if len(camera.distortion) else None
    return cv2.projectPoints(points, rotation, translation, camera.K, distortion)[0].reshape(-1, 2)


@pytest.mark.parametrize("camera", [PINHOLE, LENS], ids=["pinhole", "plumb_bob"])
@pytest.mark.parametrize("pose", [np.eye(4), OBLIQUE], ids=["frontal", "oblique"])
def test_patches_lie_where_projection_says(camera, pose):
    rows, columns, side = 7, 9, 64
    patch = np.pad(np.full((side // 2, side // 2), 250), side // 4)  # as large as its black frame is wide
    board = quad_before_camera(2.0, 0.9, 0.7, np.tile(patch, (rows, columns)).astype(np.uint8))
    image = render_view(Scene([board]), RayGrid(camera), pose).image.astype(np.float32)
    around = np.linspace(0.25, 0.75, 20)
    low, high = np.full(20, 0.25), np.full(20, 0.75)
    outline = np.stack([[*around, *high, *around[::-1], *low], [*low, *around, *high, *around[::-1]]], axis=1)

    errors = []
    for row, column in np.ndindex(rows, columns):
        s, t = ((outline + np.array([column, row])) / [columns, rows]).T[..., None]
        polygon = project(board.corner + s * board.edge_s + t * board.edge_t, camera, pose)
        left, top = np.floor(polygon.min(axis=0)).astype(int) - 3
        right, bottom = np.ceil(polygon.max(axis=0)).astype(int) + 4
        if min(left, top) >= 0 and right <= 640 and bottom <= 480:
            seen = cv2.moments(image[top:bottom, left:right])
            true = cv2.moments((polygon - polygon[0]).astype(np.float32))
            true_center = polygon[0] + [true["m10"] / true["m00"], true["m01"] / true["m00"]]
            errors.append([left + seen["m10"] / seen["m00"], top + seen["m01"] / seen["m00"]] - true_center)
    assert len(errors) > 25
    assert np.linalg.norm(errors, axis=1).max() < 0.05
    assert np.linalg.norm(np.mean(errors, axis=0)) < 0.005


@pytest.mark.parametrize("camera", [PINHOLE, LENS], ids=["pinhole", "plumb_bob"])
def test_depth_is_that_of_the_plane(camera):
    wall = quad_before_camera(2.0, 30.0, 30.0, np.full((8, 8), 90, np.uint8))
    view = render_view(Scene([wall]), RayGrid(camera), OBLIQUE)
    pixels = np.stack(np.meshgrid(np.arange(640.0), np.arange(480.0)), axis=-1).reshape(-1, 1, 2)
    rays = cv2.undistortPoints(pixels, camera.K, camera.distortion if len(camera.distortion) else None)
    rays = np.concatenate([rays.reshape(-1, 2), np.ones((640 * 480, 1))], axis=1) @ OBLIQUE[:3, :3].T
    expected = ((2.0 - OBLIQUE[2, 3]) / rays[:, 2]).reshape(480, 640)  # where the ray reaches z = 2
    # OpenCV's own undistortion stops after a few iterations; without a lens nothing but float32 is left.
    np.testing.assert_allclose(view.depth_m, expected, rtol=2e-4 if camera is LENS else 2e-6)


def random_scene(rng):
    quads = []
    for level in rng.integers(20, 255, 12):
        turn = rotation_from_vector(rng.normal(0, 1.0, 3))
        corner = rng.uniform([-1.5, -1.2, 0.5], [0.8, 0.6, 4.0])
        width, height = rng.uniform(0.4, 1.5, 2)
        texture = np.full((16, 16), level, np.uint8)
        quads.append(Quad(corner, turn[:, 0] * width, turn[:, 1] * height, texture))
    return quads


def cast_slowly(quads, camera, pose):
    """One ray and one rectangle at a time, in world coordinates; also how close each ray passes an edge."""
    depth = np.full((camera.height, camera.width), np.nan)
    index = np.full(depth.shape, -1)
    doubtful = np.zeros(depth.shape, bool)
    for row, column in np.ndindex(*depth.shape):
        ray = pose[:3, :3] @ np.linalg.solve(camera.K, [column, row, 1.0])
        for number, quad in enumerate(quads):
            normal = np.cross(quad.edge_s, quad.edge_t)
            z = normal @ (quad.corner - pose[:3, 3]) / (normal @ ray)
            place = pose[:3, 3] + z * ray - quad.corner
            s, t = (place @ edge / (edge @ edge) for edge in (quad.edge_s, quad.edge_t))
            if z > 0 and normal @ ray > 0 and min(s, t, 1 - s, 1 - t) > -1e-3:
                doubtful[row, column] |= min(s, t, 1 - s, 1 - t) < 1e-3
                if not depth[row, column] < z:
                    depth[row, column], index[row, column] = z, number
    return depth, index, doubtful


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_slow_ray_caster(seed):
    camera = Camera(np.array([[50.0, 0.0, 31.5], [0.0, 50.0, 23.5], [0.0, 0.0, 1.0]]), 64, 48)
    quads = random_scene(np.random.default_rng(seed))
    pose = pose_from(rotation_from_vector([0.1, -0.1, 0.3]), [0.0, 0.0, 0.6])  # some quads reach behind it
    depth, index, doubtful = cast_slowly(quads, camera, pose)
    view = render_view(Scene(quads), RayGrid(camera), pose)
    assert len(np.unique(index)) > 4
    assert doubtful.mean() < 0.02
    np.testing.assert_array_equal(view.quad_index[~doubtful], index[~doubtful])
    np.testing.assert_allclose(view.depth_m[~doubtful], depth[~doubtful], rtol=1e-4)
    flat = index == cv2.erode(index.astype(np.int16), np.ones((3, 3)))
    flat &= index == cv2.dilate(index.astype(np.int16), np.ones((3, 3)))
    colors = np.array([*(quad.texture[0, 0] for quad in quads), 0])
    np.testing.assert_array_equal(view.image[flat], colors[index[flat]])


def test_outlines_and_fine_textures_are_averaged():
    white = quad_before_camera(2.0, 0.5, 0.3, np.full((64, 64), 255, np.uint8))
    turned = pose_from(rotation_from_vector([0.0, 0.0, 0.2]), [0.013, 0.007, 0.0])
    image = render_view(Scene([white]), RayGrid(PINHOLE), turned).image
    corners = np.array([[-0.5, -0.3, 2.0], [0.5, -0.3, 2.0], [0.5, 0.3, 2.0], [-0.5, 0.3, 2.0]])
    area = cv2.contourArea(project(corners, PINHOLE, turned).astype(np.float32))
    assert abs(image.sum() / 255.0 / area - 1.0) < 2e-3

    pattern = np.indices((1024, 1024)).sum(axis=0) % 2 * 255
    far = render_view(Scene([quad_before_camera(2.0, 0.5, 0.5, pattern.astype(np.uint8))]), RayGrid(PINHOLE), np.eye(4))
    assert np.abs(far.image[180:300, 260:380] - 127.5).max() < 3.0


def test_sees_only_what_is_before_it_and_faces_it():
    texture = np.full((8, 8, 3), (10, 120, 230), np.uint8)
    quad = quad_before_camera(2.0, 0.5, 0.5, texture)
    scene, grid = Scene([quad], color=True), RayGrid(PINHOLE)
    assert render_view(scene, grid, np.eye(4)).image[240, 320].tolist() == [10, 120, 230]
    half_turn = rotation_from_vector([0.0, np.pi, 0.0])
    for pose in (pose_from(half_turn, np.zeros(3)), pose_from(half_turn, [0.0, 0.0, 4.0])):
        view = render_view(scene, grid, pose)
        assert not view.image.any()
        assert np.isnan(view.depth_m).all()
        assert (view.quad_index == -1).all()


def test_exposure_is_seeded_and_as_noisy_as_asked():
    image = np.full((200, 200), 100, np.uint8)
    first, again = (expose(image, np.random.default_rng(5), gain=1.2, noise_sigma=3.0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert abs(first.mean() - 120.0) < 0.1
    assert abs(first.std() - 3.0) < 0.1


def test_texture_too_large_for_the_atlas():
    with pytest.raises(ImageError, match="9088x96 texels does not fit"):
        Scene([quad_before_camera(2.0, 1.0, 1.0, np.zeros((4, 9000), np.uint8))])
