import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_datasets import write_image

from feature_matcher_ros.datatypes import DistortionModel
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation.pair_sets import load_pairs

K = [[50.0, 0.0, 31.5], [0.0, 50.0, 23.5], [0.0, 0.0, 1.0]]
POSE = [[1.0, 0.0, 0.0, -0.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.1], [0.0, 0.0, 0.0, 1.0]]


def _write_set(folder: Path, **changes: Any) -> Path:
    write_image(folder / "images" / "a.png", 10)
    write_image(folder / "images" / "b.png", 20, 32, 24)
    pair = {"img0": "images/a.png", "img1": "images/b.png", "K0": K, "K1": K, "T_cam1_from_cam0": POSE, **changes}
    path = folder / "set.json"
    path.write_text(json.dumps([{key: value for key, value in pair.items() if value is not None}]))
    return path


def test_a_pair_has_images_cameras_and_truth(tmp_path: Path) -> None:
    (pair,) = load_pairs(_write_set(tmp_path, dist0=[0.1, -0.2, 0.0, 0.0, 0.05]))
    assert pair.name == "a | b"
    assert (pair.camera0.width, pair.camera0.height) == (64, 48)
    assert (pair.camera1.width, pair.camera1.height) == (32, 24)
    assert pair.camera0.distortion_model is DistortionModel.PLUMB_BOB
    assert pair.camera1.distortion_model is DistortionModel.NONE
    np.testing.assert_array_equal(pair.cam1_from_cam0, POSE)
    frame0, frame1 = pair.frames()
    assert (int(frame0.image[0, 0]), int(frame1.image[0, 0])) == (10, 20)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"img1": "images/c.png"}, r"pair 0 of .*c\.png' cannot be read as an image"),
        ({"K1": [[1, 0], [0, 1]]}, "pair 0 of .*no 3x3 matrix"),
        ({"K0": [[0, 0, 0]] * 3}, "pair 0 of .*focal lengths must be positive"),
        ({"dist1": [1, 2, 3]}, "pair 0 of .*3 distortion coefficients do not fit"),
        ({"T_cam1_from_cam0": [[2 * number for number in row] for row in POSE]}, "no rigid motion"),
        ({"T_cam1_from_cam0": None}, "has no T_cam1_from_cam0: add it"),
    ],
)
def test_what_is_wrong_is_said_with_the_number_of_the_pair(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        load_pairs(_write_set(tmp_path, **changes))


def test_a_mark_of_windows_before_the_list_does_no_harm(tmp_path: Path) -> None:
    path = _write_set(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [pair.name for pair in load_pairs(path)] == ["a | b"]


@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read"), ("[]", "holds no list"), ("[1]", "holds no list")])
def test_files_that_hold_no_pairs(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(SourceError, match=said):
        load_pairs(tmp_path / "set.json")
    with pytest.raises(SourceError, match="cannot be read"):
        load_pairs(tmp_path / "none.json")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("scannet15", 15),
        ("strecha_fountain_castle", 20),
        ("kitti_seq1", 27),
        ("tum_fr3_office", 42),
        ("euroc_stereo", 3),
    ],
)
def test_real_sets_load(shared_data: Path, name: str, count: int) -> None:
    assert len(load_pairs(shared_data / "pairs" / f"{name}.json")) == count
