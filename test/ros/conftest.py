"""Bags for the live tests, and DDS that stays on the loopback interface."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import NUM_FRAMES, own_domain, stay_on_loopback

from feature_matcher_ros.datatypes import Frame
from feature_matcher_ros.evaluation.demo_bag import DemoBag, encode_frame
from feature_matcher_ros.evaluation.demo_rig import DemoOptions
from feature_matcher_ros.evaluation.demo_scene import DemoRecording
from feature_matcher_ros.evaluation.sequences import Modality

stay_on_loopback(own_domain())  # before any participant is made


def _write_bag(path: Path, modality: Modality, width: int = 320) -> Path:
    recording = DemoRecording(DemoOptions(modality, width=width))
    with DemoBag(path, recording.rig) as bag:
        for number in range(NUM_FRAMES):
            bag.write(encode_frame(recording.frame(number)), recording.script.ground_truth.world_from_cam[number])
    return path


@pytest.fixture(scope="session")
def stereo_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_bag(tmp_path_factory.mktemp("bags") / "stereo", Modality.STEREO)


@pytest.fixture(scope="session")
def rgbd_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_bag(tmp_path_factory.mktemp("bags") / "rgbd", Modality.RGBD)


@pytest.fixture(scope="session")
def mono_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 640x480 pixels."""
    return _write_bag(tmp_path_factory.mktemp("bags") / "mono", Modality.MONO, width=640)


@pytest.fixture(scope="session")
def frames() -> list[Frame]:
    """Images in a row, of a camera without a lens that distorts."""
    recording = DemoRecording(DemoOptions(Modality.MONO, width=320, rectified=True))
    return [recording.frame(number) for number in range(8)]


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """No test may lead DDS astray for those after it."""
    before = {name: os.environ[name] for name in ("CYCLONEDDS_URI", "ROS_DOMAIN_ID")}
    yield
    assert {name: os.environ.get(name) for name in before} == before
