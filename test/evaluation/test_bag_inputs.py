"""Doctor's look into a bag: the cameras that replay would choose, unless the node has been told of others."""

from pathlib import Path

import numpy as np
import pytest
from command_line import feature_matcher
from tiny_bags import HEIGHT, WIDTH, K, TinyBag, picture, stamp

from feature_matcher_ros.config import override
from feature_matcher_ros.node_config import LiveConfig
from feature_matcher_ros.ros.doctor import Examination, examine_bag
from feature_matcher_ros.ros.names import NodeName


def examine(path: Path, **values: str) -> Examination:
    told = {f"node.{name}": value for name, value in values.items()}
    return examine_bag(path, NodeName(), override(LiveConfig(), told).node)


def mono(bag: TinyBag) -> None:
    bag.camera("/mast/cam/image_raw")


def compressed_with_info_below(bag: TinyBag) -> None:
    bag.info("/cam/image/camera_info")
    for number in range(3):
        bag.compressed("/cam/image/compressed", stamp(number), picture(number))


def stereo(bag: TinyBag) -> None:
    P = np.hstack([K, [[-4.0], [0.0], [0.0]]])
    bag.camera("/rig/left/image_rect")
    bag.camera("/rig/right/image_rect", p=P.reshape(-1))


def rgbd(bag: TinyBag) -> None:
    bag.camera("/color/image_raw")
    for number in range(5):
        depth = np.full((HEIGHT, WIDTH), 1500, np.uint16)
        bag.image("/depth/image", stamp(number), depth, "16UC1")


@pytest.mark.parametrize(
    ("fill", "rows"),
    [
        (mono, {"image": "/mast/cam/image_raw"}),
        (
            compressed_with_info_below,
            {"image": "/cam/image/compressed", "CameraInfo of the image": "/cam/image/camera_info"},
        ),
        (stereo, {"image": "/rig/left/image_rect", "right image": "/rig/right/image_rect"}),
        (rgbd, {"image": "/color/image_raw", "depth": "/depth/image"}),
    ],
)
def test_the_doctor_finds_the_cameras_of_a_bag_as_replay_does(fill, rows: dict[str, str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bag = TinyBag()
    fill(bag)
    path = bag.write(tmp_path)
    found = examine(path)
    assert found.problems == ()
    assert rows.items() <= {row[0]: row[1] for row in found.rows}.items()
    (note,) = found.notes
    told = dict(part.split("=") for part in note.split("--set ")[1:] for part in part.split())
    again = examine(path, **{name.removeprefix("node."): value for name, value in told.items()})
    assert (again.rows, again.problems, again.notes) == (found.rows, (), ())


def test_the_doctor_takes_topics_that_it_is_told_and_asks_where_several_could_be_meant(tmp_path: Path) -> None:
    bag = TinyBag()
    bag.camera("/front/image_raw")
    bag.camera("/rear/image_raw")
    path = bag.write(tmp_path)
    (problem,) = examine(path).problems
    assert "2 cameras, /front/image_raw" in problem and "name it with -r image:=TOPIC" in problem
    told = examine(path, image_topic="/rear/image_raw")
    assert told.problems == told.notes == () and told.rows[1][1] == "/rear/image_raw"
    assert len(examine(path, image_topic="/none").problems) == 2


def test_the_doctor_says_what_replay_would_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = TinyBag()
    bag.camera("/cam/image_raw", k=np.zeros(9))
    path = bag.write(tmp_path)
    (problem,) = examine(path).problems
    assert "calib" in problem
    code, out, _ = feature_matcher(capsys, "doctor", "--bag", path)
    assert code == 1 and "found as replay finds them" in out and problem in out
