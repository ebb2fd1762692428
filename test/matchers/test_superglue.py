"""What happens around a SuperGlue network, and a network of nearest neighbours from a checkpoint to poses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeRuntime, pinhole

from feature_matcher_ros.config import FrontEndConfig, MatcherConfig, override
from feature_matcher_ros.datatypes import Features, Frame, Image, StopReason
from feature_matcher_ros.errors import ConfigError, FrameError, MatcherError, RuntimeLoadError
from feature_matcher_ros.evaluation.demo_scene import demo_frames
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.geometry import invert_pose, rotation_angle_deg
from feature_matcher_ros.matchers import create_matcher, follow_config
from feature_matcher_ros.matchers.superglue import SuperGlue
from feature_matcher_ros.matchers.superglue_graphs import SuperGlueGraphs, superglue_specs
from feature_matcher_ros.models.superglue_config import SuperGlueConfig

CONFIG = SuperGlueConfig(width=4, encoder_widths=(2,), layers=3)
Arrays = Mapping[str, np.ndarray]


class Given:
    """Finds the features that a test put into it, in turn, and the last ones ever after."""

    name = "given"

    def __init__(self, *found: Features) -> None:
        self._found = list(found)

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return self._found.pop(0) if len(self._found) > 1 else self._found[0]


def graphs() -> SuperGlueGraphs:
    """Point i of image 0 belongs to the point of image 1 whose descriptor is 100 + i; layers change nothing."""
    embed, layers, head = superglue_specs(CONFIG).values()

    def best(given: Arrays) -> dict[str, np.ndarray]:
        distance = np.abs(given["state0"][:, None, 0] - given["state1"][None, :, 0] + 100)
        log_scores = np.log(np.maximum(0.9 - 0.5 * distance, 0.01)).astype(np.float32)
        largest = {"log_scores0": log_scores.max(axis=1), "log_scores1": log_scores.max(axis=0)}
        return {"best0": log_scores.argmax(axis=1), **largest}

    return SuperGlueGraphs(
        CONFIG,
        FakeRuntime(embed, lambda given: {"state": given["descriptors"]}),
        FakeRuntime(layers, lambda given: {f"next_{name}": state for name, state in given.items()}),
        FakeRuntime(head, best),
    )


def features(*ids: int) -> Features:
    values = np.array(ids, np.float32)
    keypoints = np.column_stack((values % 100, values % 100 + 50))
    return Features(keypoints, np.ones(len(ids), np.float32), np.tile(values[:, None], CONFIG.width), (640, 480))


def matched(*ids: tuple[int, ...], min_score: float = 0.2):
    matcher = SuperGlue(Given(*(features(*each) for each in ids)), graphs(), min_score)
    image = np.zeros((480, 640), np.uint8)
    return matcher.match(matcher.extract(image), matcher.extract(image))


def test_mutually_best_points_are_paired_after_all_layers() -> None:
    matches = matched((0, 1, 2, 7), (101, 100, 102))
    assert matches.indices is not None
    assert matches.indices.tolist() == [[0, 1], [1, 0], [2, 2]]
    assert matches.indices.dtype == np.int32
    assert matches.points0.tolist() == matches.points1.tolist() == [[0, 50], [1, 51], [2, 52]]
    assert matches.scores.tolist() == pytest.approx([0.9] * 3)
    assert (matches.layers_run, matches.stop_reason) == (3, StopReason.LAST_LAYER)
    assert matches.points_per_stage is not None
    assert matches.points_per_stage.tolist() == [[4, 3]]
    assert list(matches.stages_ms or ()) == ["stage3", "head"]


@pytest.mark.parametrize(("ids0", "ids1"), [((), ()), ((), (100,)), ((0, 1), ())])
def test_an_image_without_points_runs_nothing(ids0: tuple[int, ...], ids1: tuple[int, ...]) -> None:
    matches = matched(ids0, ids1)
    assert (matches.layers_run, matches.stop_reason, len(matches)) == (0, StopReason.NOTHING_MATCHABLE, 0)
    assert matches.indices is not None and matches.indices.shape == (0, 2)
    assert matches.points_per_stage is not None and matches.points_per_stage.shape == (0, 2)


@pytest.mark.parametrize(
    ("ids0", "ids1", "expected"),
    [
        ((3,), (103,), [[0, 0]]),
        ((3, 4), (104,), [[1, 0]]),
        ((3,), (107, 103), [[0, 1]]),
        ((3, 3), (103, 103), [[0, 0]]),  # equal points share no partner
    ],
)
def test_few_points_are_matched(ids0: tuple[int, ...], ids1: tuple[int, ...], expected: list[list[int]]) -> None:
    indices = matched(ids0, ids1).indices
    assert indices is not None and indices.tolist() == expected


def test_a_match_needs_more_than_the_least_score() -> None:
    assert len(matched((3,), (104,))) == 1  # its score is 0.4
    assert len(matched((3,), (104,), min_score=0.5)) == 0
    matcher = SuperGlue(Given(features(3), features(104)), graphs())
    image = np.zeros((480, 640), np.uint8)
    pair = matcher.extract(image), matcher.extract(image)
    follow_config(matcher, MatcherConfig(min_score=0.5))
    assert len(matcher.match(*pair)) == 0


def test_the_network_is_told_where_points_are_and_how_strong() -> None:
    opened = graphs()
    corners = replace(
        features(0, 1),
        keypoints=np.array([[0, 0], [640, 240]], np.float32),
        keypoint_scores=np.array([0.25, 0.5], np.float32),
    )
    matcher = SuperGlue(Given(corners), opened)
    found = matcher.extract(np.zeros((480, 640), np.uint8))
    matcher.match(found, found)
    (given,) = opened.embed.calls  # once for an image, however often it is matched
    assert np.allclose(given["positions"], [[-1 / 1.4, -0.75 / 1.4], [1 / 1.4, 0.0]])
    assert given["keypoint_scores"].tolist() == [0.25, 0.5]


def test_wrong_features_are_refused_with_a_sentence() -> None:
    good = features(0, 1)
    image = np.zeros((480, 640), np.uint8)
    for bad, said in (
        (replace(good, descriptors=np.zeros((2, 5), np.float32)), r"\(2, 5\).*SuperGlue.*length 4"),
        (replace(good, descriptors=np.zeros((2, 4), np.uint8)), "uint8.*float32 of length 4"),
        (replace(good, descriptors=np.full((2, 4), np.nan, np.float32)), "NaN or infinite"),
        (replace(good, keypoints=np.full((2, 2), np.inf, np.float32)), "NaN or infinite"),
        (replace(good, keypoint_scores=np.full(2, np.nan, np.float32)), "a finite score of each keypoint"),
        (replace(good, keypoint_scores=np.zeros(0, np.float32)), "a finite score of each keypoint"),
    ):
        with pytest.raises(MatcherError, match=said) as raised:
            SuperGlue(Given(bad), graphs()).extract(image)
        assert str(raised.value).count(":") == 1
        front_end = FrontEnd(matcher=SuperGlue(Given(bad, good), graphs()))
        with pytest.raises(FrameError, match="stamp 7 ns"):
            front_end.process(Frame(7, image, pinhole(), "left"))
        assert front_end.process(Frame(8, image, pinhole(), "left")).is_keyframe  # the next frame is as good as ever
    with pytest.raises(MatcherError, match="features of type Features have no states"):
        SuperGlue(Given(good), graphs()).match(good, good)


@pytest.fixture(scope="module")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> FrontEndConfig:
    """The configuration of a network of nearest neighbours for SIFT, exported from a file of weights."""
    pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    pytest.importorskip("onnx", reason="the export needs onnx: pip install feature_matcher_ros[torch]")
    import torch
    from superglue_checkpoint import nearest_neighbour_tensors

    from feature_matcher_ros.export.from_checkpoint import export_checkpoint

    folder = tmp_path_factory.mktemp("graphs")
    torch.save(nearest_neighbour_tensors(width=128), folder / "nearest.pth")
    export_checkpoint(folder / "nearest.pth", folder, licence="CC0-1.0")
    values = {"matcher.name": "superglue", "matcher.graphs": str(folder), "matcher.num_threads": 1}
    return override(FrontEndConfig(), {**values, "extractor.max_keypoints": 512})


def test_rendered_frames_are_matched_and_posed(nearest: FrontEndConfig) -> None:
    """Attention adds nothing to the descriptors here: transport alone must pair the points of another view."""
    front_end = FrontEnd(override(nearest, {"keyframes.match_every_frame": True}))
    poses = {}
    for frame, world_from_cam in islice(demo_frames(Modality.MONO, stride=8), 4):
        poses[frame.stamp_ns] = world_from_cam
        result = front_end.process(frame)
        if len(poses) == 1:
            continue
        assert result.matches is not None and result.matches.layers_run == 1
        assert result.keyframe_stamp_ns is not None and result.pose is not None and result.inliers is not None
        assert len(result.inliers) > 60 and result.inliers.mean() > 0.9
        truth = invert_pose(world_from_cam) @ poses[result.keyframe_stamp_ns]
        assert rotation_angle_deg(result.pose.rotation @ truth[:3, :3].T) < 0.3


def test_what_is_no_superglue_for_these_points_is_refused(nearest: FrontEndConfig) -> None:
    with pytest.raises(MatcherError, match=r"\(0, 32\) and type uint8.*SuperGlue.*float32 of length 128"):
        create_matcher(override(nearest, {"extractor.name": "orb"}))
    with pytest.raises(ConfigError, match="superglue needs a network and none ships"):
        create_matcher(override(nearest, {"matcher.graphs": ""}))
    with pytest.raises(RuntimeLoadError, match="the graphs of 'superglue', not of lightglue"):
        create_matcher(override(nearest, {"matcher.name": "lightglue"}))
    shipped = Path(__file__).parents[2] / "engines" / "lightglue_sift"
    with pytest.raises(RuntimeLoadError, match="the graphs of 'lightglue', not of superglue"):
        create_matcher(override(nearest, {"matcher.graphs": str(shipped)}))
