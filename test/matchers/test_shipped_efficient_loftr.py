"""The detector-free network that comes with the package, on rendered pairs whose truth is known, and beside torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from command_line import feature_matcher

from feature_matcher_ros.config import FrontEndConfig, MatcherConfig, PoseConfig
from feature_matcher_ros.datatypes import Float, Frame, MotionType
from feature_matcher_ros.evaluation.demo_scene import demo_frames
from feature_matcher_ros.evaluation.image_files import read_image
from feature_matcher_ros.evaluation.low_texture import low_texture_mask
from feature_matcher_ros.evaluation.metrics import epipolar_precision, pose_error
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.extractors.selection import inside_mask
from feature_matcher_ros.geometry import invert_pose
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.matchers.detector_free import DenseRules, DetectorFree
from feature_matcher_ros.matchers.matcher import Matcher
from feature_matcher_ros.relative_pose import estimate_relative_pose
from feature_matcher_ros.runtimes.manifest import read_manifest
from feature_matcher_ros.runtimes.shipped_graphs import shipped_graphs

ENGINES = Path(__file__).parents[2] / "engines"
MAX_ERROR = 1e-5  # squared, in normalised coordinates: one pixel and a half here


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    """Without any setting but its name."""
    return create_matcher(FrontEndConfig(matcher=MatcherConfig(name="efficient_loftr")))


def wide_pairs() -> Iterator[tuple[Frame, Frame, Float]]:
    """Frames of the demo a second apart, and the pose between them."""
    frames = islice(demo_frames(Modality.MONO, stride=16), 7)
    for (frame0, pose0), (frame1, pose1) in pairwise(frames):
        if np.linalg.norm((cam1_from_cam0 := invert_pose(pose1) @ pose0)[:3, 3]) > 0.1:
            yield frame0, frame1, cam1_from_cam0


def test_it_finds_true_points_and_poses_where_texture_is_low_too(matcher: Matcher) -> None:
    """Floors: about two thirds of what it did when it was put here."""
    shares, counts, low, poses = [], [], 0, 0
    for frame0, frame1, truth in wide_pairs():
        matches = matcher.match(matcher.extract(frame0.image), matcher.extract(frame1.image))
        points = matches.points0, matches.points1, frame0.camera, frame1.camera
        shares.append(epipolar_precision(*points, truth, MAX_ERROR) or 0.0)
        counts.append(len(matches))
        low += int(inside_mask(matches.points0, low_texture_mask(frame0.image)).sum())
        estimate = estimate_relative_pose(*points, PoseConfig())
        pose = estimate.pose
        if pose is not None and estimate.motion_type is MotionType.GENERAL:  # two motions explain a plane
            assert pose_error(pose.rotation, pose.direction, truth).rotation_deg < 1.0
            poses += 1
    assert np.mean(shares) > 0.5 and np.mean(counts) > 300 and low > 200 and poses >= 2


def test_it_runs_from_the_command_line_without_any_option_but_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = ENGINES.parent / "docs/matches.jpg"
    code, out, err = feature_matcher(
        capsys, "match", picture, picture, "--matcher", "efficient_loftr", "-o", tmp_path / "matches.png"
    )
    assert (code, err) == (0, "") and read_image(tmp_path / "matches.png").size > 0
    assert int(next(word for word in out.split() if word.isdigit())) > 500


def test_its_graphs_compute_what_its_weights_do_by_torch(matcher: Matcher) -> None:
    """On a rendered pair: the same cells, and points within a twentieth of a pixel."""
    pytest.importorskip("torch", reason="the comparison with torch needs it: pip install feature_matcher_ros[torch]")
    from feature_matcher_ros.export.dense_to_onnx import dense_by_torch
    from feature_matcher_ros.models.checkpoint import read_checkpoint
    from feature_matcher_ros.models.efficient_loftr import efficient_loftr_from_checkpoint

    network = efficient_loftr_from_checkpoint(read_checkpoint(ENGINES / "efficient_loftr.safetensors")).merge()
    assert isinstance(matcher, DetectorFree)
    rules = DenseRules(max_image_px=matcher.max_image_px, thresholds=matcher.graphs.tuning.confidence_thresholds)
    by_torch = DetectorFree(dense_by_torch(network), rules)
    frame0, frame1, _ = next(wide_pairs())
    found, expected = (m.match(m.extract(frame0.image), m.extract(frame1.image)) for m in (matcher, by_torch))
    assert len(found) == len(expected) > 100 and found.layers_run == expected.layers_run
    np.testing.assert_allclose(found.points0, expected.points0, atol=0.05)
    np.testing.assert_allclose(found.points1, expected.points1, atol=0.05)


def test_its_manifest_says_where_it_is_from_and_it_is_small() -> None:
    manifest = read_manifest(shipped_graphs("efficient_loftr"))
    assert manifest.method == "efficient_loftr" and manifest.licence == "Apache-2.0"
    assert all(entry.max_difference < 1e-4 for entry in manifest.graphs.values())
    assert (ENGINES / "efficient_loftr.safetensors").stat().st_size < 12e6
    assert sum(path.stat().st_size for path in (ENGINES / "efficient_loftr").iterdir()) < 9e6
