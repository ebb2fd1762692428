"""Stereo and depth on surfaces whose distance is known everywhere."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from feature_matcher_ros.datatypes import (
    Camera,
    DepthView,
    DistortionModel,
    Float,
    Frame,
    MetricPoints,
    ScaleSource,
    StereoView,
)
from feature_matcher_ros.errors import CalibrationError, ImageError
from feature_matcher_ros.geometry import (
    normalize_points,
    pose_from,
    project_points,
    rotation_from_vector,
    transform_points,
)
from feature_matcher_ros.metric_points import measure_points
from feature_matcher_ros.metric_points.depth_points import sample_depth

EUROC_LIKE = Camera(np.array([[458.0, 0, 375.5], [0, 457.0, 239.5], [0, 0, 1]]), 752, 480)
KITTI_LIKE = Camera(np.array([[707.0, 0, 600.0], [0, 707.0, 183.0], [0, 0, 1]]), 1241, 376)
BARREL = np.array([-0.28, 0.07, 2e-4, 2e-5])


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Noise with structures of many sizes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width))
    for size in (3, 6, 12, 24, 48):
        small = rng.normal(size=(height // size + 2, width // size + 2))
        image += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image * 28 + 128, 0, 255)


def grid(camera: Camera, step: int = 23, margin: int = 12) -> np.ndarray:
    """Pixels all over the image, between the centres of its own."""
    columns, rows = np.arange(margin, camera.width - margin, step), np.arange(margin, camera.height - margin, step)
    return (np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2) + 0.3).astype(np.float32)


def rays_of(pixels: np.ndarray, camera: Camera) -> Float:
    return np.column_stack([normalize_points(pixels, camera), np.ones(len(pixels))])


def plane_pair(
    camera: Camera, right_from_left: Float, normal: list[float], offset_m: float, noise: float = 2.0, gain: float = 1.4
) -> tuple[Frame, Float]:
    """A textured plane ``normal . x = offset_m`` seen by two cameras of unlike exposure, and its unit normal.

    The texture is painted on the pixels of a distortion-free left camera, and each image looks up what its own
    pixels see: exact but for the interpolation of the texture.
    """
    rng = np.random.default_rng(1)
    n = np.array(normal) / np.linalg.norm(normal)
    margin = 300
    paint = texture(camera.width + 2 * margin, camera.height + 2 * margin)
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = rays_of(np.stack([x, y], axis=-1).reshape(-1, 2), camera)
    left_from_right = np.linalg.inv(right_from_left)
    origin = left_from_right[:3, 3]
    images = []
    for start, directions in ((np.zeros(3), rays), (origin, rays @ left_from_right[:3, :3].T)):
        depth = (offset_m - start @ n) / (directions @ n)
        on_plane = start + depth[:, None] * directions
        places = on_plane[:, :2] / on_plane[:, 2:] * camera.K[0, 0] + camera.K[:2, 2] + margin
        maps = places.astype(np.float32).reshape(camera.height, camera.width, 2)
        images.append(cv2.remap(paint, maps, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))
    left, right = images
    exposed = [left, (right - 128) / gain + 110]
    eight_bit = [np.clip(im + rng.normal(0, noise, im.shape), 0, 255).astype(np.uint8) for im in exposed]
    return Frame(0, eight_bit[0], camera, stereo=StereoView(eight_bit[1], camera, right_from_left)), n


def check_plane(frame: Frame, normal: Float, offset_m: float, min_known: float, max_error_px: float = 0.25) -> None:
    """Most of the pixels that the right camera sees too are known, and as precisely as they claim."""
    assert frame.stereo is not None
    pixels = grid(frame.camera)
    rays = rays_of(pixels, frame.camera)
    true_depth = offset_m / (rays @ normal)
    in_right = project_points(
        transform_points(frame.stereo.right_from_left, rays * true_depth[:, None]), frame.stereo.camera
    )
    seen = np.all((in_right > 10) & (in_right < [frame.camera.width - 11, frame.camera.height - 11]), axis=1)
    metric = measure_points(frame, pixels)
    assert metric is not None and metric.scale_source is ScaleSource.STEREO
    known = np.isfinite(metric.sigma_m)
    np.testing.assert_array_equal(known, np.isfinite(metric.points).all(axis=1))
    assert known[seen].mean() > min_known
    pulls = (metric.points[:, 2] - true_depth)[known] / metric.sigma_m[known]
    assert np.mean(np.abs(pulls) > 5) < 0.005  # wrong matches
    assert np.std(pulls[np.abs(pulls) < 5]) < max_error_px / 0.25
    np.testing.assert_allclose(metric.points[known] / metric.points[known, 2:], rays[known], atol=1e-9)


def baseline(x: float, y: float = 0.0, z: float = 0.0, turn: tuple[float, float, float] = (0, 0, 0)) -> Float:
    return pose_from(rotation_from_vector(turn), [-x, -y, -z])


@pytest.mark.parametrize(
    ("camera", "right_from_left", "normal", "offset_m", "min_known"),
    [
        pytest.param(EUROC_LIKE, baseline(0.11), [0, 0, 1], 0.9, 0.95, id="near wall, 56 px"),
        pytest.param(
            EUROC_LIKE, baseline(0.11, 0.002, 0.001, (0.014, 4e-4, 0.002)), [0.4, 0.2, 1], 2.0, 0.9, id="not rectified"
        ),
        pytest.param(EUROC_LIKE, baseline(0.0, 0.11), [0.2, 0.3, 1], 2.0, 0.9, id="one above the other"),
        pytest.param(KITTI_LIKE, baseline(0.54), [0.1, 0, 1], 3.2, 0.9, id="wide baseline, 120 px"),
        pytest.param(KITTI_LIKE, baseline(0.54), [0, 0, 1], 40.0, 0.9, id="wide baseline, 10 px"),
    ],
)
def test_stereo_measures_a_textured_plane(
    camera: Camera, right_from_left: Float, normal: list[float], offset_m: float, min_known: float
) -> None:
    frame, unit_normal = plane_pair(camera, right_from_left, normal, offset_m)
    check_plane(frame, unit_normal, offset_m, min_known)


@pytest.mark.parametrize("model", [DistortionModel.PLUMB_BOB, DistortionModel.EQUIDISTANT])
def test_stereo_undoes_the_distortion_of_the_lens(model: DistortionModel) -> None:
    lens = BARREL if model is DistortionModel.PLUMB_BOB else np.array([0.02, -0.01, 0.003, 0.0])
    camera = Camera(EUROC_LIKE.K, 752, 480, lens, model)
    frame, normal = plane_pair(camera, baseline(0.11, turn=(0.014, 4e-4, 0.002)), [0.2, 0.1, 1], 2.0)
    check_plane(frame, normal, 2.0, min_known=0.9)


def test_the_stated_depth_error_is_that_of_a_disparity_error() -> None:
    """Against numbers: the right pixel moved by the stated disparity error and triangulated again."""
    from feature_matcher_ros.geometry import triangulate
    from feature_matcher_ros.metric_points.stereo_points import DISPARITY_SIGMA_PX

    right_from_left = baseline(0.11, 0.02, 0.03, (0.01, 0.05, 0.02))
    frame, _ = plane_pair(EUROC_LIKE, right_from_left, [0.3, 0.1, 1], 1.5)
    metric = measure_points(frame, grid(EUROC_LIKE))
    assert metric is not None
    known = np.isfinite(metric.sigma_m)
    points = metric.points[known]
    ahead, behind = (
        project_points(transform_points(right_from_left, points * scale), EUROC_LIKE) for scale in (1.001, 0.999)
    )
    along = (ahead - behind) / np.linalg.norm(ahead - behind, axis=1, keepdims=True)
    here = project_points(transform_points(right_from_left, points), EUROC_LIKE)
    left = points[:, :2] / points[:, 2:]
    moved = triangulate(right_from_left, left, normalize_points(here + along * DISPARITY_SIGMA_PX / 10, EUROC_LIKE))
    np.testing.assert_allclose(metric.sigma_m[known], 10 * np.abs(moved[:, 2] - points[:, 2]), rtol=0.05)


def test_what_stereo_cannot_know_is_nan() -> None:
    frame, _ = plane_pair(EUROC_LIKE, baseline(0.11), [0, 0, 1], 2.0)
    assert frame.stereo is not None
    blank = StereoView(np.full((480, 752), 50, np.uint8), EUROC_LIKE, baseline(0.11))
    other = StereoView(texture(752, 480, seed=9).astype(np.uint8), EUROC_LIKE, baseline(0.11))
    for stereo, most in ((blank, 0.0), (other, 0.01)):
        metric = measure_points(Frame(0, frame.image, frame.camera, stereo=stereo), grid(EUROC_LIKE))
        assert metric is not None
        assert np.isfinite(metric.sigma_m).mean() <= most
    far, _ = plane_pair(EUROC_LIKE, baseline(0.11), [0, 0, 1], 80.0)  # 0.6 px of disparity
    metric = measure_points(far, grid(EUROC_LIKE))
    assert metric is not None
    assert np.isfinite(metric.sigma_m).mean() < 0.05


def test_stereo_images_may_differ_in_size_and_colour() -> None:
    frame, normal = plane_pair(EUROC_LIKE, baseline(0.11), [0.1, 0, 1], 2.0)
    assert frame.stereo is not None
    cropped = Camera(EUROC_LIKE.K, 740, 400)
    stereo = StereoView(cv2.cvtColor(frame.stereo.image[:400, :740], cv2.COLOR_GRAY2BGR), cropped, baseline(0.11))
    metric = measure_points(Frame(0, frame.image, EUROC_LIKE, stereo=stereo), grid(EUROC_LIKE))
    assert metric is not None
    known = np.isfinite(metric.sigma_m)
    assert known.mean() > 0.6
    true_depth = 2.0 / (rays_of(grid(EUROC_LIKE), EUROC_LIKE) @ normal)
    assert np.median(np.abs(metric.points[:, 2] - true_depth)[known]) < 0.02


def test_impossible_views_are_refused_when_they_are_made() -> None:
    image = np.zeros((480, 752), np.uint8)
    with pytest.raises(CalibrationError, match=r"baseline of 0\.0 m gives no depth: correct"):
        StereoView(image, EUROC_LIKE, np.eye(4))
    with pytest.raises(ImageError, match=r"right image has 751x480 pixels but its camera 752x480: publish"):
        StereoView(image[:, 1:], EUROC_LIKE, baseline(0.11))
    with pytest.raises(ImageError, match=r"depth map has 376x240 pixels but its camera 752x480: publish"):
        DepthView(np.zeros((240, 376), np.float32), EUROC_LIKE, np.eye(4))
    with pytest.raises(ImageError, match=r"type uint16 cannot be used: give metres"):
        DepthView(np.zeros((480, 752), np.uint16), EUROC_LIKE, np.eye(4))


# ---------------------------------------------------------------------------------------------- depth

VGA = Camera(np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]]), 640, 480)
BACK_WALL_M, BOX_M = 3.0, 1.2


def scene_depth(camera: Camera, cam_from_scene: Float, pixels: np.ndarray) -> tuple[Float, np.ndarray]:
    """Depth (N,) along rays of a camera towards a tilted wall with a box in front, and which rays hit the box."""
    scene_from_cam = np.linalg.inv(cam_from_scene)
    rays, start = rays_of(pixels, camera) @ scene_from_cam[:3, :3].T, scene_from_cam[:3, 3]
    wall_normal = np.array([0.2, -0.1, 1.0])
    wall = (BACK_WALL_M - start @ wall_normal) / (rays @ wall_normal)
    box = (BOX_M - start[2]) / rays[:, 2]
    on_box = start + box[:, None] * rays
    hits_box = np.all(np.abs(on_box[:, :2]) < 0.25, axis=1)
    return np.where(hits_box, box, wall), hits_box


def depth_map(camera: Camera, cam_from_scene: Float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    depth, _ = scene_depth(camera, cam_from_scene, np.stack([x, y], axis=-1).reshape(-1, 2))
    return depth.reshape(camera.height, camera.width).astype(np.float32)


def measured(camera: Camera, sensor: Camera, cam_from_depth: Float, pixels: np.ndarray) -> MetricPoints:
    """What is measured in a camera at the origin of the scene with a depth sensor beside it."""
    view = DepthView(depth_map(sensor, np.linalg.inv(cam_from_depth)), sensor, cam_from_depth)
    image = np.zeros((camera.height, camera.width), np.uint8)
    metric = measure_points(Frame(0, image, camera, depth=view), pixels)
    assert metric is not None and metric.scale_source is ScaleSource.DEPTH
    return metric


@pytest.mark.parametrize(
    ("camera", "sensor", "cam_from_depth", "min_known", "max_error"),
    [
        pytest.param(VGA, VGA, np.eye(4), 0.95, 1e-5, id="registered"),
        pytest.param(
            Camera(VGA.K, 640, 480, BARREL, DistortionModel.PLUMB_BOB),
            Camera(VGA.K, 640, 480, BARREL, DistortionModel.PLUMB_BOB),
            np.eye(4),
            0.95,
            1e-3,
            id="registered, distorted",
        ),
        pytest.param(
            VGA,
            Camera(np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]]), 640, 480),
            baseline(0.025, turn=(0.002, 0.01, 0.003)),
            0.7,  # the sensor sees less than the camera
            2e-3,
            id="beside, longer focal length",
        ),
        pytest.param(
            VGA,
            Camera(np.array([[205.0, 0, 159.5], [0, 205, 119.5], [0, 0, 1]]), 320, 240),
            baseline(-0.05, turn=(0.0, 0.02, 0.0)),
            0.9,
            6e-3,
            id="beside, a quarter of the pixels",
        ),
        pytest.param(
            Camera(VGA.K, 640, 480, BARREL, DistortionModel.PLUMB_BOB),
            Camera(np.array([[300.0, 0, 320], [0, 300, 240], [0, 0, 1]]), 640, 480),
            baseline(0.03),
            0.9,
            4e-3,
            id="beside, distorted",
        ),
        pytest.param(
            VGA,
            Camera(VGA.K, 640, 480, np.zeros(5), DistortionModel.PLUMB_BOB),
            np.eye(4),
            0.95,
            1e-5,  # as exact as with the very same camera
            id="registered, zeros written out",
        ),
        pytest.param(
            Camera(VGA.K, 640, 480, np.zeros(4), DistortionModel.PLUMB_BOB),
            Camera(VGA.K, 640, 480, np.zeros(4), DistortionModel.EQUIDISTANT),
            np.eye(4),
            0.7,
            4e-3,
            id="the same numbers, another lens",
        ),
    ],
)
def test_depth_is_that_of_the_surface_the_camera_sees(
    camera: Camera, sensor: Camera, cam_from_depth: Float, min_known: float, max_error: float
) -> None:
    pixels = grid(camera, step=7, margin=5)
    true_depth, _ = scene_depth(camera, np.eye(4), pixels)
    metric = measured(camera, sensor, cam_from_depth, pixels)
    known = np.isfinite(metric.sigma_m)
    error = np.abs(metric.points[:, 2] / true_depth - 1)[known]
    assert known.mean() > min_known
    assert np.percentile(error, 99) < max_error
    assert np.mean(error > 0.1) < 0.003  # almost never the surface behind, or the one in front
    np.testing.assert_allclose(
        metric.points[known] / metric.points[known, 2:], rays_of(pixels, camera)[known], atol=1e-9
    )
    np.testing.assert_allclose(
        metric.sigma_m[known], np.maximum(1.4e-3 * metric.points[known, 2] ** 2, 2e-3), rtol=1e-9
    )


def test_depth_at_the_edge_of_a_surface_is_unknown() -> None:
    box_edge = project_points(np.array([[0.25, 0.0, BOX_M]]), VGA)[0]
    offsets = np.arange(-6.0, 6.5, 0.5)
    pixels = (box_edge + np.stack([offsets, np.zeros_like(offsets)], axis=1)).astype(np.float32)
    z = measured(VGA, VGA, np.eye(4), pixels).points[:, 2]
    assert np.all(np.isnan(z[np.abs(offsets) <= 0.5]))
    np.testing.assert_allclose(z[offsets < -1.6], BOX_M, atol=1e-5)
    assert np.all(z[offsets > 1.6] > 2.0)


@pytest.mark.parametrize("hole", [np.nan, 0.0, np.inf, -1.0])
def test_holes_are_bridged_if_small_and_unknown_if_not(hole: float) -> None:
    depth = np.full((40, 60), 2.0, np.float32)
    depth[10, 10] = depth[20:, 30:] = hole
    pixels = np.float32([[10, 10], [10.4, 9.8], [45, 30], [29.4, 25], [28, 25], [30, 19], [59.4, 5], [-0.4, 20]])
    z = sample_depth(depth, pixels)
    np.testing.assert_array_equal(np.isfinite(z), [False, True, False, True, True, True, True, True])
    np.testing.assert_allclose(z[np.isfinite(z)], 2.0)
    assert np.all(np.isnan(sample_depth(depth, np.float32([[60, 5], [-1, 5], [5, 41], [1e6, -1e6]]))))


@pytest.mark.parametrize("sensor_focal", [525.0, 585.0])
def test_a_map_without_any_depth_knows_nothing(sensor_focal: float) -> None:
    sensor = Camera(np.array([[sensor_focal, 0, 319.5], [0, sensor_focal, 239.5], [0, 0, 1]]), 640, 480)
    for value in (np.nan, 0.0, np.inf):
        view = DepthView(np.full((480, 640), value, np.float32), sensor, np.eye(4))
        metric = measure_points(Frame(0, np.zeros((480, 640), np.uint8), VGA, depth=view), grid(VGA))
        assert metric is not None
        assert not np.isfinite(metric.points).any() and not np.isfinite(metric.sigma_m).any()


def test_no_pixels_and_no_source_of_scale() -> None:
    image, nothing = np.zeros((480, 640), np.uint8), np.zeros((0, 2), np.float32)
    assert measure_points(Frame(0, image, VGA), grid(VGA)) is None
    depth = DepthView(np.ones((480, 640), np.float32), VGA, np.eye(4))
    shifted = DepthView(np.ones((480, 640), np.float32), VGA, baseline(0.02))
    frames = [
        Frame(0, image, VGA, stereo=StereoView(image, VGA, baseline(0.1))),
        Frame(0, image, VGA, depth=depth),
        Frame(0, image, VGA, depth=shifted),
    ]
    for frame in frames:
        metric = measure_points(frame, nothing)
        assert metric is not None
        assert metric.points.shape == (0, 3) and metric.sigma_m.shape == (0,)


@pytest.mark.data
def test_most_points_of_a_real_stereo_pair_have_depth(shared_data: Path) -> None:
    """A room with exposures that differ between the cameras; what is found agrees with the epipolar lines."""
    pair = json.loads((shared_data / "pairs" / "euroc_stereo.json").read_text())[0]
    images = [cv2.imread(str(shared_data / "pairs" / pair[name]), cv2.IMREAD_GRAYSCALE) for name in ("img0", "img1")]
    cameras = [
        Camera(np.array(pair[f"K{i}"]), 752, 480, np.array(pair[f"dist{i}"]), DistortionModel.PLUMB_BOB) for i in (0, 1)
    ]
    right_from_left = np.array(pair["T_cam1_from_cam0"])
    corners = cv2.goodFeaturesToTrack(images[0], 500, 0.01, 8).reshape(-1, 2)
    frame = Frame(0, images[0], cameras[0], stereo=StereoView(images[1], cameras[1], right_from_left))
    metric = measure_points(frame, corners)
    assert metric is not None
    known = np.isfinite(metric.sigma_m)
    assert known.mean() > 0.7
    assert 1.0 < np.median(metric.points[known, 2]) < 4.0
    assert np.median(metric.sigma_m[known] / metric.points[known, 2]) < 0.03
