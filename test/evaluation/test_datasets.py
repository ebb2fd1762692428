"""Every layout, written small and read back, and the real sequences against independent numbers."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tiny_datasets import (
    CALIBRATION,
    write_depth,
    write_image,
    write_image_folder,
    write_rgbd_folder,
    write_stereo_folder,
    write_text,
)

from feature_matcher_ros.datatypes import DistortionModel
from feature_matcher_ros.errors import CalibrationError, SourceError
from feature_matcher_ros.evaluation.datasets.file_sequence import FileSequence
from feature_matcher_ros.evaluation.datasets.video import VideoSequence
from feature_matcher_ros.evaluation.image_files import stamp_from_name, stamp_from_text
from feature_matcher_ros.evaluation.sequences import Modality, Selection, open_sequence
from feature_matcher_ros.evaluation.trajectories import interpolate_trajectory
from feature_matcher_ros.geometry import invert_pose, pose_from

MS = 1_000_000


def _row(pose: NDArray[np.float64]) -> str:
    return " ".join(f"{number:.12g}" for number in pose[:3].ravel())


def _pose(seed: int) -> NDArray[np.float64]:
    return pose_from(Rotation.random(random_state=seed).as_matrix(), np.random.default_rng(seed).uniform(-5, 5, 3))


# --- TUM RGB-D


def _write_tum(folder: Path) -> Path:
    colors = ["1.000000", "1.033333", "1.066667", "1.100000"]
    depths = ["1.010000", "1.030000", "1.095000"]  # none for the third image within 20 ms
    for number, name in enumerate(colors):
        write_image(folder / "rgb" / f"{name}.png", 10 * number, 640, 480)
    for number, name in enumerate(depths):
        write_depth(folder / "depth" / f"{name}.png", 5000 * (number + 1), 640, 480)
    write_text(folder / "rgb.txt", "# color\n" + "".join(f"{name} rgb/{name}.png\n" for name in colors))
    write_text(folder / "depth.txt", "# depth\n" + "".join(f"{name} depth/{name}.png\n" for name in depths))
    write_text(folder / "groundtruth.txt", "# truth\n1.0 1 2 3 0 0 0 1\n1.05 1 2 4 0 0 1 0\n")
    return folder


def test_tum_rgbd_pairs_depth_by_time(tmp_path: Path) -> None:
    sequence = open_sequence(_write_tum(tmp_path / "rgbd_dataset_freiburg1_xyz"))
    frames = list(sequence.frames())
    assert (sequence.info.layout, sequence.modality, len(sequence)) == ("TUM RGB-D", Modality.RGBD, 4)
    assert [frame.stamp_ns for frame in frames] == [1_000_000_000, 1_033_333_000, 1_100_000_000]
    assert [float(frame.depth.depth_m[9, 9]) for frame in frames if frame.depth] == [1.0, 2.0, 3.0]
    assert sequence.skipped == {"there is no depth image of the same time": 1}
    assert frames[0].camera.K[0, 0] == 517.3 and len(frames[0].camera.distortion) == 5
    assert sequence.ground_truth is not None and sequence.ground_truth.stamps_ns.tolist() == [10**9, 1_050_000_000]


def test_tum_rgbd_as_windows_and_motion_capture_write_it(tmp_path: Path) -> None:
    folder = _write_tum(tmp_path / "rgbd_dataset_freiburg1_xyz")
    lost = "1.02 nan nan nan nan nan nan nan\n"
    truth = (folder / "groundtruth.txt").read_text().replace("1.05", lost + "1.05")
    write_text(folder / "groundtruth.txt", truth)
    for path in folder.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    sequence = open_sequence(folder)
    assert (len(list(sequence.frames())), sequence.modality) == (3, Modality.RGBD)
    assert sequence.ground_truth is not None
    assert sequence.ground_truth.stamps_ns.tolist() == [1_000_000_000, 1_050_000_000]


@pytest.mark.parametrize(
    ("folder", "list_comment", "focal_px"),
    [("freiburg2_desk", "", 520.9), ("fr3", "", 535.4), ("desk", "# file: 'rgbd_dataset_freiburg3_x.bag'\n", 535.4)],
)
def test_tum_rgbd_knows_its_three_cameras(tmp_path: Path, folder: str, list_comment: str, focal_px: float) -> None:
    _write_tum(tmp_path / folder)
    path = tmp_path / folder / "rgb.txt"
    path.write_text(list_comment + path.read_text())
    assert next(iter(open_sequence(tmp_path / folder).frames())).camera.K[0, 0] == focal_px


def test_tum_rgbd_of_an_unknown_camera_needs_a_calibration(tmp_path: Path) -> None:
    folder = _write_tum(tmp_path / "kitchen")
    with pytest.raises(CalibrationError, match=r"kitchen' cannot be told .* --calibration"):
        open_sequence(folder)
    own = write_text(tmp_path / "own.yaml", "width: 640\nheight: 480\nK: [500, 0, 320, 0, 500, 240, 0, 0, 1]\n")
    frame = next(iter(open_sequence(folder, Selection(calibration=own)).frames()))
    assert frame.depth is not None and frame.depth.depth_m[9, 9] == 1.0
    assert frame.camera.K[0, 0] == frame.depth.camera.K[0, 0] == 500


def test_tum_rgbd_lists_are_checked(tmp_path: Path) -> None:
    folder = _write_tum(tmp_path / "fr3")
    write_text(folder / "rgb.txt", "1.0 rgb/1.000000.png\n1.1\n")
    with pytest.raises(SourceError, match=r"rgb\.txt', line 2: '1\.1' is not 'seconds filename'"):
        open_sequence(folder)
    write_text(folder / "rgb.txt", "# nothing\n")
    with pytest.raises(SourceError, match="lists no image"):
        open_sequence(folder)
    write_text(folder / "rgb.txt", "1.0 rgb/gone.png\n1.1 rgb/1.100000.png\n")
    sequence = open_sequence(folder, Selection(modality=Modality.MONO))
    assert len(list(sequence.frames())) == 1 and sequence.skipped.total() == 1


# --- EuRoC


def _sensor_yaml(body_from_sensor: NDArray[np.float64], focal_px: float) -> str:
    numbers = ", ".join(map(repr, body_from_sensor.ravel().tolist()))
    return (
        f"%YAML:1.0\nT_BS:\n  cols: 4\n  rows: 4\n  data: [{numbers}]\nresolution: [64, 48]\n"
        f"intrinsics: [{focal_px}, {focal_px}, 31.5, 23.5]\ndistortion_model: equidistant\n"
        "distortion_coefficients: [0.1, 0.01, 0.0, 0.0]\n"
    )


def _write_euroc(folder: Path) -> Path:
    stamps = [1_403_715_273_000_000_000 + number * 50 * MS for number in range(3)]
    for camera, delay in (("cam0", 0), ("cam1", 1 * MS)):
        root = folder / "mav0" / camera
        write_text(root / "sensor.yaml", _sensor_yaml(_pose(int(camera[-1])), 50 + int(camera[-1])))
        rows = []
        for number, stamp in enumerate(stamps):
            late = delay + (20 * MS if camera == "cam1" and number == 1 else 0)
            write_image(root / "data" / f"{stamp + late}.png", 10 * number + int(camera[-1]))
            rows.append(f"{stamp + late},{stamp + late}.png\n")
        write_text(root / "data.csv", "#timestamp [ns],filename\n" + "".join(rows))
    return folder


def test_euroc_stereo_out_of_sync_is_counted(tmp_path: Path) -> None:
    sequence = open_sequence(_write_euroc(tmp_path / "V1_01"))
    frames = list(sequence.frames())
    assert (sequence.name, sequence.modality, len(sequence)) == ("V1_01", Modality.STEREO, 3)
    assert [int(frame.stereo.image[0, 0]) for frame in frames if frame.stereo] == [1, 21]
    assert sequence.skipped == {"there is no right image of the same time": 1}
    assert frames[0].stereo is not None
    assert frames[0].camera.distortion_model is DistortionModel.EQUIDISTANT
    assert (frames[0].camera.K[0, 0], frames[0].stereo.camera.K[0, 0]) == (50, 51)
    point = np.array([0.3, -0.2, 4.0, 1.0])  # in the left camera, by way of the body into the right one
    np.testing.assert_allclose(_pose(1) @ frames[0].stereo.right_from_left @ point, _pose(0) @ point, atol=1e-9)


def test_euroc_without_a_list_or_a_second_camera(tmp_path: Path) -> None:
    _write_euroc(tmp_path)
    (tmp_path / "mav0" / "cam0" / "data.csv").unlink()
    (tmp_path / "mav0" / "cam1" / "sensor.yaml").unlink()
    sequence = open_sequence(tmp_path / "mav0")
    assert (sequence.modality, len(sequence), sequence.name) == (Modality.MONO, 3, tmp_path.name)


@pytest.mark.parametrize("source", ["state_groundtruth_estimate0", "vicon0"])
def test_euroc_ground_truth_is_that_of_the_left_camera(tmp_path: Path, source: str) -> None:
    _write_euroc(tmp_path)
    world_from_sensor, body_from_sensor = _pose(8), _pose(9)
    x, y, z, w = Rotation.from_matrix(world_from_sensor[:3, :3]).as_quat()
    px, py, pz = world_from_sensor[:3, 3]
    root = tmp_path / "mav0" / source
    write_text(root / "data.csv", f"#timestamp\n1403715273000000000,{px},{py},{pz},{w},{x},{y},{z},0,0,0\n")
    write_text(root / "sensor.yaml", f"T_BS: {{data: {body_from_sensor.ravel().tolist()}}}\n")
    truth = open_sequence(tmp_path).ground_truth
    assert truth is not None and truth.stamps_ns.tolist() == [1403715273000000000]
    origin = truth.world_from_cam[0] @ [0, 0, 0, 1]  # the camera's centre: camera, body, sensor, world
    expected = world_from_sensor @ np.linalg.inv(body_from_sensor) @ _pose(0)
    np.testing.assert_allclose(origin, expected[:, 3], atol=1e-6)
    np.testing.assert_allclose(truth.world_from_cam[0], expected, atol=1e-6)
    (root / "sensor.yaml").unlink()
    with pytest.raises(CalibrationError, match=rf"{source}/sensor\.yaml' with T_BS, .* is missing: add it"):
        open_sequence(tmp_path)


def test_euroc_files_are_checked(tmp_path: Path) -> None:
    _write_euroc(tmp_path)
    write_text(tmp_path / "mav0" / "cam1" / "sensor.yaml", "resolution: [64, 48]\nintrinsics: [50, 50, 31, 23]\n")
    with pytest.raises(CalibrationError, match="has no T_BS"):
        open_sequence(tmp_path)
    write_text(tmp_path / "mav0" / "cam0" / "data.csv", "x,y\n")
    with pytest.raises(SourceError, match="line 1: 'x y' is not 'nanoseconds,filename'"):
        open_sequence(tmp_path)


# --- KITTI odometry

P0 = "50 0 31.5 0 0 50 23.5 0 0 0 1 0"
P1 = "50 0 31.5 -27 0 50 23.5 0 0 0 1 0"
P2 = "60 0 31.5 3.6 0 60 23.5 0.6 0 0 1 0"
P3 = "60 0 31.5 -28.8 0 60 23.5 0.6 0 0 1 0"


def _write_kitti(folder: Path, cameras: tuple[str, ...]) -> Path:
    for camera in cameras:
        for number in range(3):
            write_image(folder / camera / f"{number:06d}.png", 10 * number)
    write_text(folder / "calib.txt", f"P0: {P0}\nP1: {P1}\nP2: {P2}\nP3: {P3}\nTr: {P0}\n")
    return folder


def test_kitti_stereo_with_times_and_poses_beside(tmp_path: Path) -> None:
    folder = _write_kitti(tmp_path / "sequences" / "07", ("image_0", "image_1", "image_2", "image_3"))
    write_text(folder / "times.txt", "0.000000e+00\n1.037358e-01\n2.074716e-01\n3.0e-01\n")
    write_text(tmp_path / "poses" / "07.txt", f"{_row(np.eye(4))}\n{_row(_pose(1))}\n")
    sequence = open_sequence(folder)
    frames = list(sequence.frames())
    assert [frame.stamp_ns for frame in frames] == [0, 103_735_800, 207_471_600]
    assert frames[0].stereo is not None and frames[0].camera.K[0, 0] == 50
    np.testing.assert_allclose(frames[0].stereo.right_from_left[:3, 3], [-0.54, 0, 0])
    assert sequence.ground_truth is not None and len(sequence.ground_truth) == 2
    np.testing.assert_allclose(sequence.ground_truth.world_from_cam[1], _pose(1), atol=1e-10)


def test_kitti_colour_cameras_stand_beside_camera_0(tmp_path: Path) -> None:
    folder = _write_kitti(tmp_path / "00", ("image_0", "image_1", "image_2", "image_3"))
    write_text(folder / "poses.txt", f"{_row(_pose(1))}\n")
    sequence = open_sequence(folder, Selection(image_topic="image_2"))
    frame = next(iter(sequence.frames()))
    assert frame.stereo is not None and sequence.ground_truth is not None
    np.testing.assert_allclose(frame.stereo.right_from_left[:3, 3], [-0.54, 0, 0], atol=1e-12)
    point = np.array([0.3, -0.2, 4.0, 1.0])  # in camera 0
    pixel = np.array(P2.split(), dtype=float).reshape(3, 4) @ point
    in_cam2 = np.linalg.inv(sequence.ground_truth.world_from_cam[0]) @ _pose(1) @ point
    np.testing.assert_allclose(frame.camera.K @ in_cam2[:3] / in_cam2[2], pixel / pixel[2])
    with pytest.raises(SourceError, match="no left images 'image_9': choose image_0 or image_2"):
        open_sequence(folder, Selection(image_topic="image_9"))


def test_kitti_keeps_the_numbers_of_a_part_of_a_sequence(tmp_path: Path) -> None:
    folder = _write_kitti(tmp_path, ("image_l",))
    (folder / "image_l" / "000001.png").unlink()
    write_text(folder / "calib.txt", f"{P0}\n{P1}\n")
    sequence = open_sequence(folder)
    assert sequence.modality is Modality.MONO
    assert [frame.stamp_ns for frame in sequence.frames()] == [0, 200 * MS]
    assert "10 images a second" in sequence.info.assumptions[0]


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("calib.txt", f"P1: {P1}\n", CalibrationError, "no usable projection P0"),
        ("calib.txt", f"P0: {P0.replace('50', '0')}\n", CalibrationError, "no usable projection P0"),
        ("calib.txt", "P0: 1 2 3\n", SourceError, "line 1: 3 numbers where 12"),
        ("calib.txt", "P0: wide\n", SourceError, "line 1: 'wide' are no numbers"),
        ("times.txt", "0.0\n", SourceError, "has 1 lines but the last image is number 2"),
        ("times.txt", "now\n", SourceError, "seconds of one image"),
        ("poses.txt", "1 0 0\n", SourceError, "line 1: 3 numbers where 12"),
    ],
)
def test_kitti_files_are_checked(tmp_path: Path, name: str, text: str, error: type[Exception], said: str) -> None:
    _write_kitti(tmp_path, ("image_0",))
    write_text(tmp_path / name, text)
    with pytest.raises(error, match=said):
        open_sequence(tmp_path)


# --- 7-Scenes


def _write_seven_scenes(folder: Path) -> Path:
    for number in (0, 1, 3):
        write_image(folder / f"frame-{number:06d}.color.png", 10 * number, 640, 480)
        write_depth(folder / f"frame-{number:06d}.depth.png", 1500, 640, 480)
        rows = "\n".join("\t".join(map(repr, row)) for row in _pose(number).tolist())
        write_text(folder / f"frame-{number:06d}.pose.txt", rows + "\n")
    return folder


def test_seven_scenes_poses_are_moved_to_the_colour_camera(tmp_path: Path) -> None:
    sequence = open_sequence(_write_seven_scenes(tmp_path / "redkitchen" / "seq-01"))
    frames = list(sequence.frames())
    assert (sequence.name, sequence.modality) == ("redkitchen_seq-01", Modality.RGBD)
    assert [frame.stamp_ns for frame in frames] == [0, 33_333_333, 100_000_000]
    depth = frames[0].depth
    assert depth is not None and sequence.ground_truth is not None
    assert (frames[0].camera.K[0, 0], depth.camera.K[0, 0], float(depth.depth_m[9, 9])) == (525, 585, 1.5)
    point = np.array([0.3, -0.2, 2.0, 1.0])  # in the depth camera, whose pose is that of the file
    in_world = sequence.ground_truth.world_from_cam[1] @ depth.cam_from_depth @ point
    np.testing.assert_allclose(in_world, _pose(1) @ point, atol=1e-9)


def test_seven_scenes_without_depth_or_poses(tmp_path: Path) -> None:
    _write_seven_scenes(tmp_path)
    for path in [*tmp_path.glob("*.depth.png"), tmp_path / "frame-000001.pose.txt"]:
        path.unlink()
    write_text(tmp_path / "frame-000003.pose.txt", "-inf " * 16)
    sequence = open_sequence(tmp_path)
    assert sequence.modality is Modality.MONO
    assert sequence.ground_truth is not None and sequence.ground_truth.stamps_ns.tolist() == [0]
    write_text(tmp_path / "frame-000003.pose.txt", "1 0 0")
    with pytest.raises(SourceError, match=r"frame-000003\.pose\.txt' holds 3 numbers instead of 16"):
        open_sequence(tmp_path)


# --- plain images


def test_image_folder_is_in_natural_order_at_30_hz(tmp_path: Path) -> None:
    sequence = open_sequence(write_image_folder(tmp_path, count=12))
    frames = list(sequence.frames())
    assert [int(frame.image[0, 0]) for frame in frames] == [10 * number for number in range(12)]
    assert frames[3].stamp_ns == 100 * MS and "30 images a second" in sequence.info.assumptions[0]
    assert sequence.ground_truth is None


@pytest.mark.parametrize(
    ("written", "stamp_ns"),
    [
        ("0", 0),
        ("1.5", 1_500_000_000),
        ("1341847980", 1341847980 * 10**9),
        ("1341847980.722988", 1341847980722988000),
        ("1341847980722", 1341847980722 * 10**6),
        ("1341847980722988", 1341847980722988000),
        ("1403715273262142976", 1403715273262142976),
    ],
)
def test_times_are_understood_by_their_digits(written: str, stamp_ns: int) -> None:
    assert stamp_from_text(written) == stamp_ns
    is_name_of_time = "." in written or len(written) > 12
    assert stamp_from_name(Path(f"{written}.png")) == (stamp_ns if is_name_of_time else None)
    assert stamp_from_name(Path("0000000000012.png")) is None


def test_image_folder_takes_its_times_from_a_file_or_the_names(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "a", count=2)
    write_text(tmp_path / "a" / "times.txt", "# s\n10.5 0.png\n10.6 1.png\n")
    assert [frame.stamp_ns for frame in open_sequence(tmp_path / "a").frames()] == [10_500 * MS, 10_600 * MS]
    write_text(tmp_path / "a" / "times.txt", "10.5\n")
    with pytest.raises(SourceError, match="has 1 times for 2 images"):
        open_sequence(tmp_path / "a")
    write_image(tmp_path / "b" / "images" / "1403715273262142976.png")
    write_text(tmp_path / "b" / "camera_info.yaml", CALIBRATION)
    assert [frame.stamp_ns for frame in open_sequence(tmp_path / "b").frames()] == [1403715273262142976]


def test_image_folder_needs_one_calibration(tmp_path: Path) -> None:
    write_image_folder(tmp_path, count=1)
    write_text(tmp_path / "camera.yaml", CALIBRATION.replace("50", "60"))
    with pytest.raises(CalibrationError, match=r"several calibrations, .*calibration\.yaml', .*camera\.yaml'"):
        open_sequence(tmp_path)
    chosen = Selection(calibration=tmp_path / "camera.yaml")
    assert next(iter(open_sequence(tmp_path, chosen).frames())).camera.K[0, 0] == 60
    (tmp_path / "camera.yaml").unlink(), (tmp_path / "calibration.yaml").unlink()
    with pytest.raises(CalibrationError, match=r"no calibration for .*--calibration, or put calibration\.yaml"):
        open_sequence(tmp_path)


def test_images_of_a_sensor_of_twelve_bits_keep_their_grey_values(tmp_path: Path) -> None:
    write_image_folder(tmp_path, count=1)
    values = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    for channels in (1, 3):
        assert cv2.imwrite(str(tmp_path / "0.png"), np.dstack([values] * channels))
        for color in (False, True):
            image = next(iter(open_sequence(tmp_path, Selection(color=color)).frames())).image
            grey = image if image.ndim == 2 else image[..., 1]
            np.testing.assert_allclose(grey.astype(float), values * (255 / 4095), atol=0.51)


def test_stereo_folders_are_paired_by_number(tmp_path: Path) -> None:
    frame = list(open_sequence(write_stereo_folder(tmp_path)).frames())[2]
    assert frame.stereo is not None and int(frame.stereo.image[0, 0]) == 25
    assert (frame.stereo.camera.K[0, 0], frame.stereo.right_from_left[0, 3]) == (51, -0.1)


def test_stereo_folders_with_a_mono_calibration_ask(tmp_path: Path) -> None:
    write_stereo_folder(tmp_path, CALIBRATION)
    with pytest.raises(CalibrationError, match="the calibration has no right camera: add right"):
        open_sequence(tmp_path)
    assert open_sequence(tmp_path, Selection(modality=Modality.MONO)).modality is Modality.MONO


def test_rgb_and_depth_folders(tmp_path: Path) -> None:
    sequence = open_sequence(write_rgbd_folder(tmp_path))
    depths = [float(frame.depth.depth_m[9, 9]) for frame in sequence.frames() if frame.depth]
    np.testing.assert_allclose(depths, [1.0, 1.001, 1.002])
    assert "millimetres" in sequence.info.assumptions[-1]


def test_depth_that_is_a_picture_is_refused_as_such(tmp_path: Path) -> None:
    """As viewers export it, in 8 bits."""
    write_rgbd_folder(tmp_path)
    for number in range(3):
        write_image(tmp_path / "depth" / f"{number}.png", 100)
    with pytest.raises(SourceError, match=r"not one of the 3 depth images .*0\.png' .* uint8 holds no depth: give"):
        open_sequence(tmp_path)


def test_depth_of_floating_point_holds_metres(tmp_path: Path) -> None:
    write_rgbd_folder(tmp_path)
    depth = np.full((48, 64), 2.5, np.float32)
    depth[0, :3] = np.nan, np.inf, -1.0
    assert cv2.imwrite(str(tmp_path / "depth" / "0.tiff"), depth)
    (tmp_path / "depth" / "0.png").unlink()
    frame = next(iter(open_sequence(tmp_path).frames()))
    assert frame.depth is not None and float(frame.depth.depth_m[9, 9]) == 2.5
    assert np.flatnonzero(np.isnan(frame.depth.depth_m)).tolist() == [0, 1, 2]


# --- video


def _write_video(path: Path, count: int = 6) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for number in range(count):
        writer.write(np.full((48, 64, 3), 40 * number % 256, np.uint8))
    writer.release()
    return path


def test_video_with_its_calibration_beside(tmp_path: Path) -> None:
    path = _write_video(tmp_path / "walk.avi")
    write_text(tmp_path / "walk.yaml", CALIBRATION)
    sequence = open_sequence(path)
    frames = list(sequence.frames())
    assert (sequence.name, len(sequence), len(frames)) == ("walk", 6, 6)
    assert [frame.stamp_ns for frame in frames] == [number * 50 * MS for number in range(6)]
    np.testing.assert_allclose([float(frame.image.mean()) for frame in frames], np.arange(6) * 40, atol=3)
    selection = Selection(start_s=0.1, duration_s=0.2, stride=2, color=True)
    assert [frame.image.shape for frame in open_sequence(path, selection).frames()] == [(48, 64, 3)] * 2
    assert len(open_sequence(path, selection)) == 2


def test_nothing_behind_the_stretch_of_a_video_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind a few seconds of an hour would take minutes to step through."""
    path = _write_video(tmp_path / "walk.avi", count=40)
    write_text(tmp_path / "walk.yaml", CALIBRATION)
    grabbed: list[int] = []
    stamp = VideoSequence._stamp
    monkeypatch.setattr(VideoSequence, "_stamp", lambda self, *where: (grabbed.append(1), stamp(self, *where))[1])
    sequence = open_sequence(path, Selection(start_s=0.1, duration_s=0.2))
    assert [frame.stamp_ns for frame in sequence.frames()] == [number * 50 * MS for number in (2, 3, 4, 5)]
    assert len(grabbed) == 7 and not sequence.skipped  # the first one behind it says that it is over


def test_video_errors(tmp_path: Path) -> None:
    path = _write_video(tmp_path / "walk.avi")
    with pytest.raises(CalibrationError, match=r"no calibration for .*walk\.avi'.* put 'walk\.yaml' beside it"):
        open_sequence(path)
    write_text(tmp_path / "walk.yaml", CALIBRATION.replace("64", "32"))
    with pytest.raises(CalibrationError, match="the video has 64x48 pixels but its calibration 32x48"):
        open_sequence(path)
    write_text(tmp_path / "walk.yaml", CALIBRATION)
    with pytest.raises(SourceError, match=r"it is 0\.30 s long"):
        open_sequence(path, Selection(start_s=5.0))
    with pytest.raises(SourceError, match="does not offer STEREO"):
        open_sequence(path, Selection(modality=Modality.STEREO))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SourceError, match="cannot be decoded as a video"):
        open_sequence(path)


# --- the real sequences


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "modality", "count", "size", "focal_px", "num_truth"),
    [
        ("7scenes_redkitchen", Modality.RGBD, 120, (640, 480), 525.0, 120),
        ("kitti_seq1", Modality.MONO, 51, (1226, 370), 707.0912, 51),
        ("tum_fr3_office", Modality.MONO, 17, (640, 480), 535.4, 8710),
        ("euroc_v101", Modality.STEREO, 15, (752, 480), 458.654, None),
    ],
)
def test_real_sequences_open_with_nothing_but_their_path(
    shared_data: Path,
    name: str,
    modality: Modality,
    count: int,
    size: tuple[int, int],
    focal_px: float,
    num_truth: int | None,
) -> None:
    sequence = open_sequence(shared_data / "sequences" / name)
    frame = next(iter(sequence.frames()))
    assert (sequence.modality, len(sequence), frame.camera.K[0, 0]) == (modality, count, focal_px)
    assert (frame.camera.width, frame.camera.height) == size
    assert (None if sequence.ground_truth is None else len(sequence.ground_truth)) == num_truth


@pytest.mark.data
@pytest.mark.parametrize(("name", "folder"), [("kitti_seq1", "image_l"), ("tum_fr3_office", "freiburg_sequence")])
def test_real_ground_truth_agrees_with_the_pairs(shared_data: Path, name: str, folder: str) -> None:
    sequence = open_sequence(shared_data / "sequences" / name)
    assert isinstance(sequence, FileSequence) and sequence.ground_truth is not None
    paths = sorted((shared_data / "sequences" / name / folder).iterdir())
    stamps = dict(zip([path.name for path in paths], [frame.stamp_ns for frame in sequence.frames()], strict=True))
    pairs = json.loads((shared_data / "pairs" / f"{name}.json").read_text())
    for pair in pairs:
        wanted = [stamps[Path(pair[key]).name] for key in ("img0", "img1")]
        answered, (world_from_cam0, world_from_cam1) = interpolate_trajectory(sequence.ground_truth, wanted, 50 * MS)
        cam1_from_cam0 = invert_pose(world_from_cam1) @ world_from_cam0
        assert len(answered) == 2
        # KITTI writes seven digits; the pairs of TUM take the nearest pose instead, up to 5 ms away.
        tolerance = 1e-5 if name == "kitti_seq1" else 5e-3
        np.testing.assert_allclose(cam1_from_cam0, pair["T_cam1_from_cam0"], atol=tolerance)


@pytest.mark.data
def test_real_stereo_rig_agrees_with_the_pairs(shared_data: Path) -> None:
    frame = next(iter(open_sequence(shared_data / "sequences" / "euroc_v101").frames()))
    pair = json.loads((shared_data / "pairs" / "euroc_stereo.json").read_text())[0]
    assert frame.stereo is not None
    np.testing.assert_allclose(frame.stereo.right_from_left, pair["T_cam1_from_cam0"], atol=1e-9)
    np.testing.assert_array_equal(frame.stereo.camera.distortion, pair["dist1"])


@pytest.mark.data
def test_real_kinect_depth_edges_lie_on_image_edges(shared_data: Path) -> None:
    """The assumed place of the colour camera beats both its mirror image and no offset at all."""
    sequence = open_sequence(shared_data / "sequences" / "7scenes_redkitchen", Selection(stride=30))
    contrast = np.zeros(3)
    for frame in sequence.frames():
        assert frame.depth is not None
        cam_from_depth = frame.depth.cam_from_depth
        for number, candidate in enumerate((cam_from_depth, np.eye(4), invert_pose(cam_from_depth))):
            depth = _depth_in_image(frame.depth.depth_m, frame.depth.camera.K, frame.camera.K, candidate)
            contrast[number] += _gradient_at_depth_edges(frame.image, depth)
    assert contrast[0] > 1.3 * contrast[1] > 1.3 * contrast[2]


def _depth_in_image(
    depth_m: NDArray[np.float32],
    depth_K: NDArray[np.float64],
    K: NDArray[np.float64],
    cam_from_depth: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The nearest depth per pixel of the image; 0 where there is none."""
    v, u = np.nonzero(np.isfinite(depth_m))
    rays = np.linalg.solve(depth_K, np.stack([u, v, np.ones(len(u))]))
    points = cam_from_depth[:3, :3] @ (rays * depth_m[v, u]) + cam_from_depth[:3, 3:]
    x, y, _ = np.round(K @ points / points[2]).astype(int)
    inside = (x >= 0) & (x < 640) & (y >= 0) & (y < 480)
    image = np.full((480, 640), np.inf)
    np.minimum.at(image, (y[inside], x[inside]), points[2, inside])
    return cv2.medianBlur(np.where(np.isfinite(image), image, 0).astype(np.float32), 5)


def _gradient_at_depth_edges(image: NDArray[np.uint8], depth: NDArray[np.float32]) -> float:
    """Mean gradient of the image at jumps of the depth, over that everywhere."""
    known = cv2.erode((depth > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    kernel = np.ones((3, 3), np.uint8)
    nearest = cv2.erode(np.where(depth > 0, depth, 99).astype(np.float32), kernel)
    edges = known & (cv2.dilate(depth, kernel) - nearest > 0.15)
    smooth = cv2.GaussianBlur(image, (0, 0), 1.4).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))
    return float(gradient[edges].mean() / gradient[known].mean())
