"""What holds for every source: opening, choosing, selecting and skipping."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import feature_matcher
from tiny_bags import TinyBag
from tiny_datasets import (
    CALIBRATION,
    RIGHT,
    write_depth,
    write_image,
    write_image_folder,
    write_rgbd_folder,
    write_stereo_folder,
    write_text,
)

from feature_matcher_ros.errors import CalibrationError, ConfigError, SourceError
from feature_matcher_ros.evaluation.sequences import Modality, Selection, is_bag, open_sequence


def _values(path: Path, selection: Selection | None = None) -> list[int]:
    return [int(frame.image[0, 0]) for frame in open_sequence(path, selection).frames()]


def test_grey_by_default_and_colour_on_request(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path)
    assert next(iter(open_sequence(folder).frames())).image.shape == (48, 64)
    assert next(iter(open_sequence(folder, Selection(color=True)).frames())).image.shape == (48, 64, 3)


def test_frames_start_again_with_each_call_and_are_lazy(tmp_path: Path) -> None:
    sequence = open_sequence(write_image_folder(tmp_path))
    frames = sequence.frames()
    assert next(frames).stamp_ns == 0
    (tmp_path / "4.png").unlink()
    assert len(list(frames)) == 3 and sequence.skipped.total() == 1
    assert len(list(sequence.frames())) == 4 and sequence.skipped.total() == 1


@pytest.mark.parametrize(
    ("selection", "values"),
    [
        (Selection(), [0, 10, 20, 30, 40]),
        (Selection(stride=2), [0, 20, 40]),
        (Selection(start_s=0.05), [20, 30, 40]),
        (Selection(duration_s=0.05), [0, 10]),
        (Selection(start_s=0.03, duration_s=0.09, stride=2), [10, 30]),
        (Selection(duration_s=float("inf")), [0, 10, 20, 30, 40]),
    ],
)
def test_start_duration_and_stride(tmp_path: Path, selection: Selection, values: list[int]) -> None:
    folder = write_image_folder(tmp_path)  # 30 Hz
    assert _values(folder, selection) == values
    assert len(open_sequence(folder, selection)) == len(values)


def test_nothing_selected_says_how_long_the_sequence_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"it is 0\.13 s long"):
        open_sequence(write_image_folder(tmp_path), Selection(start_s=7.0))


@pytest.mark.parametrize(
    "wrong", [{"stride": 0}, {"start_s": -1.0}, {"start_s": float("nan")}, {"duration_s": 0.0}, {"duration_s": -1.0}]
)
def test_selections_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        Selection(**wrong)  # type: ignore[arg-type]


def test_missing_empty_and_unknown_folders_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere' does not exist"):
        open_sequence(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"is empty: looked for a bag, and for rgb\.txt.*mav0.*calib\.txt.*frame-"):
        open_sequence(tmp_path)
    write_text(tmp_path / "notes.md", "nothing")
    with pytest.raises(SourceError, match="holds no sequence that is known"):
        open_sequence(tmp_path)


def test_a_folder_above_sequences_lists_them(tmp_path: Path) -> None:
    for name in ("office", "desk"):
        write_text(tmp_path / name / "rgb.txt", "1.0 rgb/1.0.png\n")
    write_text(tmp_path / "run.mcap", "")
    (tmp_path / "run.mcap").rename(tmp_path / "run.bag")
    with pytest.raises(SourceError, match=r"holds 3: give one of '.*desk', '.*office', '.*run\.bag'"):
        open_sequence(tmp_path)


def test_several_folders_of_images_are_listed(tmp_path: Path) -> None:
    write_image(tmp_path / "front" / "0.png")
    write_image(tmp_path / "back" / "0.png")
    with pytest.raises(SourceError, match=r"give one of '.*back', '.*front'"):
        open_sequence(tmp_path)


def test_a_folder_of_two_layouts_asks_for_one(tmp_path: Path) -> None:
    write_image(tmp_path / "image_0" / "000000.png", 70)
    write_text(tmp_path / "calib.txt", "P0: 50 0 31.5 0 0 50 23.5 0 0 0 1 0\n")
    write_text(tmp_path / "rgb.txt", "# freiburg3\n1.0 image_0/000000.png\n")
    with pytest.raises(SourceError, match=r"several layouts \(tum_rgbd, kitti\): choose one with --layout"):
        open_sequence(tmp_path)
    assert _values(tmp_path, Selection(layout="kitti")) == [70]
    with pytest.raises(SourceError, match="not of the layout euroc: it lacks mav0/cam0"):
        open_sequence(tmp_path, Selection(layout="euroc"))
    with pytest.raises(SourceError, match="no layout 'rosbag': choose tum_rgbd, euroc"):
        open_sequence(tmp_path, Selection(layout="rosbag"))


def test_bags_are_told_from_datasets(tmp_path: Path) -> None:
    for name in ("a.bag", "b.mcap", "c.db3"):
        assert is_bag(write_text(tmp_path / name, ""))
    write_text(tmp_path / "ros2" / "metadata.yaml", "rosbag2_bagfile_information:\n  version: 5\n")
    write_text(tmp_path / "no_metadata" / "x_0.mcap", "")
    write_text(tmp_path / "other" / "metadata.yaml", "author: someone\n")
    assert is_bag(tmp_path / "ros2") and is_bag(tmp_path / "no_metadata") and not is_bag(tmp_path / "other")


@pytest.mark.parametrize("name", ["image_topic", "depth_camera_info_topic", "ground_truth_topic"])
def test_topics_outside_bags_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "video.mp4").touch()
    for source in (write_image_folder(tmp_path / "images"), tmp_path / "video.mp4"):
        with pytest.raises(ConfigError, match=rf"^--{name.replace('_', '-')} /nope means nothing for"):
            open_sequence(source, Selection(**{name: "/nope"}))  # type: ignore[arg-type]


def test_a_layout_is_refused_where_there_is_none(tmp_path: Path) -> None:
    bag = TinyBag("mcap")
    bag.camera()
    (tmp_path / "video.mp4").touch()
    for source in (bag.write(tmp_path), tmp_path / "video.mp4"):
        with pytest.raises(ConfigError, match=r"^--layout kitti means nothing for"):
            open_sequence(source, Selection(layout="kitti"))


@pytest.fixture
def unreadable() -> Iterator[Path]:
    """A folder that the user, who is not root meanwhile, may see but not read."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "closed"
        folder.mkdir(mode=0)
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)


def test_a_folder_that_may_not_be_read_is_one_sentence(unreadable: Path) -> None:
    with pytest.raises(SourceError, match=r"closed' cannot be read \(Permission denied\): check its permissions"):
        open_sequence(unreadable)


def test_a_calibration_takes_the_place_of_the_sources_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_image_folder(tmp_path / "images")
    other = write_text(tmp_path / "other.yaml", CALIBRATION.replace("50", "60"))
    cameras = [next(iter(open_sequence(folder, s).frames())).camera for s in (None, Selection(calibration=other))]
    assert [camera.K[0, 0] for camera in cameras] == [50.0, 60.0]
    help_text = " ".join(feature_matcher(capsys, "replay", "--help")[1].split())
    assert "YAML calibration, instead of the source's own." in help_text


def test_one_image_is_not_a_sequence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is one image: give the folder"):
        open_sequence(write_image(tmp_path / "0.png"))


def test_the_modality_is_the_richest_or_the_one_asked_for(tmp_path: Path) -> None:
    mono, stereo, rgbd = (tmp_path / name for name in ("mono", "stereo", "rgbd"))
    write_image_folder(mono), write_stereo_folder(stereo), write_rgbd_folder(rgbd)
    assert open_sequence(mono).modality is Modality.MONO
    assert open_sequence(stereo).modality is Modality.STEREO
    assert open_sequence(rgbd).modality is Modality.RGBD
    frame = next(iter(open_sequence(stereo, Selection(modality=Modality.MONO)).frames()))
    assert frame.stereo is None and frame.depth is None
    with pytest.raises(SourceError, match="does not offer RGBD: choose --modality MONO or STEREO"):
        open_sequence(stereo, Selection(modality=Modality.RGBD))
    with pytest.raises(SourceError, match="does not offer STEREO: choose --modality MONO"):
        open_sequence(mono, Selection(modality=Modality.STEREO))


def test_stereo_with_depth_asks_which_is_meant(tmp_path: Path) -> None:
    write_stereo_folder(tmp_path)
    for number in range(3):
        write_depth(tmp_path / "depth" / f"{number}.png")
    with pytest.raises(SourceError, match="offers STEREO and RGBD: choose one of them with --modality"):
        open_sequence(tmp_path)
    frame = next(iter(open_sequence(tmp_path, Selection(modality=Modality.RGBD)).frames()))
    assert frame.depth is not None and frame.stereo is None


def test_damaged_and_wrong_sized_images_are_counted_and_the_others_come(tmp_path: Path) -> None:
    write_image_folder(tmp_path, count=8)
    write_image(tmp_path / "2.png", width=32)
    (tmp_path / "3.png").write_bytes(b"")
    (tmp_path / "5.png").write_bytes(b"this is no image")
    sequence = open_sequence(tmp_path)
    assert [int(frame.image[0, 0]) for frame in sequence.frames()] == [0, 10, 40, 60, 70]
    assert len(sequence) == 8
    assert sequence.skipped == {
        "the image is missing or cannot be decoded": 2,
        "the image has 32x48 pixels but its calibration 64x48": 1,
    }


def test_a_calibration_of_another_size_is_refused_at_once(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "a", calibration=CALIBRATION.replace("64", "65"))
    with pytest.raises(CalibrationError, match="the image has 64x48 pixels but its calibration 65x48"):
        open_sequence(tmp_path / "a")
    write_stereo_folder(tmp_path / "b", calibration=CALIBRATION + RIGHT.replace("64", "65"))
    with pytest.raises(CalibrationError, match="the right image has 64x48 pixels but its calibration 65x48"):
        open_sequence(tmp_path / "b")


def test_images_none_of_which_can_be_decoded(tmp_path: Path) -> None:
    write_image_folder(tmp_path, count=2)
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"not one of the 2 images can be used.*0\.png' cannot be read as"):
        open_sequence(tmp_path)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7680, 4320)])
def test_the_smallest_and_very_large_images(tmp_path: Path, width: int, height: int) -> None:
    write_image(tmp_path / "0.png", 7, width, height)
    write_text(tmp_path / "camera.yaml", f"width: {width}\nheight: {height}\nK: [9, 0, 0, 0, 9, 0, 0, 0, 1]\n")
    (frame,) = open_sequence(tmp_path).frames()
    assert frame.image.shape == (height, width) and int(frame.image[0, 0]) == 7


def test_repeated_and_backward_stamps_are_passed_on(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    write_text(tmp_path / "times.txt", "1.0\n1.5\n1.5\n0.5\n2.0\n")
    stamps = [frame.stamp_ns for frame in open_sequence(tmp_path).frames()]
    assert stamps == [1_000_000_000, 1_500_000_000, 1_500_000_000, 500_000_000, 2_000_000_000]


def test_a_frame_without_its_partner_is_counted(tmp_path: Path) -> None:
    write_stereo_folder(tmp_path)
    (tmp_path / "right" / "right_001.png").unlink()
    sequence = open_sequence(tmp_path)
    assert [int(frame.image[0, 0]) for frame in sequence.frames()] == [0, 20]
    assert sequence.skipped == {"there is no right image of the same time": 1}


def test_unknown_depth_is_nan(tmp_path: Path) -> None:
    frame = next(iter(open_sequence(write_rgbd_folder(tmp_path)).frames()))
    assert frame.depth is not None and frame.depth.depth_m.dtype == np.float32
    assert np.flatnonzero(np.isnan(frame.depth.depth_m)).tolist() == [0, 64]
    assert frame.depth.depth_m[5, 5] == np.float32(1.0)


def test_depth_without_a_single_known_value(tmp_path: Path) -> None:
    write_rgbd_folder(tmp_path)
    write_depth(tmp_path / "depth" / "0.png", 0)
    frame = next(iter(open_sequence(tmp_path).frames()))
    assert frame.depth is not None and np.all(np.isnan(frame.depth.depth_m))


def test_registered_depth_of_half_size_gets_the_camera_of_half_size(tmp_path: Path) -> None:
    frame = next(iter(open_sequence(write_rgbd_folder(tmp_path, width=32, height=24)).frames()))
    assert frame.depth is not None
    assert (frame.depth.camera.width, frame.depth.camera.height) == (32, 24)
    np.testing.assert_allclose(frame.depth.camera.K, [[25, 0, 15.5], [0, 25, 11.5], [0, 0, 1]])


def test_depth_of_another_shape_needs_its_own_camera(tmp_path: Path) -> None:
    write_rgbd_folder(tmp_path, width=40, height=24)
    with pytest.raises(CalibrationError, match="not registered to the images: 40x24 pixels are not 64x48"):
        open_sequence(tmp_path)
    own = "depth:\n  width: 40\n  height: 24\n  K: [30, 0, 19.5, 0, 30, 11.5, 0, 0, 1]\n  units_per_m: 100\n"
    write_text(tmp_path / "calibration.yaml", CALIBRATION + own)
    frame = next(iter(open_sequence(tmp_path).frames()))
    assert frame.depth is not None and frame.depth.camera.K[0, 0] == 30
    assert frame.depth.depth_m[5, 5] == np.float32(10.0)


def test_a_depth_image_of_another_size_amid_the_others_is_counted(tmp_path: Path) -> None:
    write_rgbd_folder(tmp_path)
    write_depth(tmp_path / "depth" / "1.png", width=32, height=24)
    write_image(tmp_path / "depth" / "2.png")  # eight bits and three channels are no depth
    sequence = open_sequence(tmp_path)
    assert len(list(sequence.frames())) == 1
    assert sequence.skipped == {
        "the depth image has 32x24 pixels but its calibration 64x48": 1,
        "the depth image is missing, damaged, or not one channel of 16 bits or of floating point": 1,
    }
