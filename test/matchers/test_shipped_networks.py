"""The network that comes with the package, on rendered pairs whose truth is known, beside its own descriptors alone."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from feature_matcher_ros.config import ExtractorConfig, FrontEndConfig, MatcherConfig, load_config
from feature_matcher_ros.datatypes import Float, Frame, Matches
from feature_matcher_ros.errors import MatcherError, RuntimeLoadError
from feature_matcher_ros.evaluation.demo_scene import demo_frames
from feature_matcher_ros.evaluation.evaluate_pairs import evaluate_pairs
from feature_matcher_ros.evaluation.image_files import read_image
from feature_matcher_ros.evaluation.metrics import epipolar_precision
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.evaluation.threshold_records import record_pair
from feature_matcher_ros.geometry import invert_pose
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.matchers.lightglue import LightGlue
from feature_matcher_ros.matchers.matcher import Matcher
from feature_matcher_ros.runtimes.shipped_graphs import shipped_graphs

ROOT = Path(__file__).parents[2]
EXTRACTOR = ExtractorConfig(name="sift", max_keypoints=512)
PAIR_SETS = ("tum_fr3_office", "kitti_seq1", "strecha_fountain_castle")
MAX_ERROR = 1e-5  # squared, in normalised coordinates: one pixel and a half here


def wide_pairs() -> list[tuple[Frame, Frame, Float]]:
    """Frames of the demo a second apart, and the pose between them."""
    frames = list(islice(demo_frames(Modality.MONO, stride=16), 7))
    return [
        (frame0, frame1, invert_pose(pose1) @ pose0)
        for (frame0, pose0), (frame1, pose1) in pairwise(frames)
        if np.linalg.norm((invert_pose(pose1) @ pose0)[:3, 3]) > 0.1
    ]


def correct_matches(config: FrontEndConfig, pairs: list[tuple[Frame, Frame, Float]]) -> tuple[int, float]:
    """How many matches lie on the true epipolar lines, and what share of all that is."""
    matcher, found, good = create_matcher(config), 0, 0.0
    for frame0, frame1, cam1_from_cam0 in pairs:
        matches: Matches = matcher.match(matcher.extract(frame0.image), matcher.extract(frame1.image))
        share = epipolar_precision(
            matches.points0, matches.points1, frame0.camera, frame1.camera, cam1_from_cam0, MAX_ERROR
        )
        found, good = found + len(matches), good + (share or 0.0) * len(matches)
    return round(good), good / max(1, found)


def test_the_shipped_lightglue_finds_more_than_its_descriptors_alone() -> None:
    pairs = wide_pairs()
    assert len(pairs) >= 4
    alone = FrontEndConfig(extractor=EXTRACTOR, matcher=MatcherConfig(name="mutual_nearest", max_ratio=0.9))
    glued = replace(alone, matcher=MatcherConfig(name="lightglue"))
    (good_alone, share_alone), (good_glued, share_glued) = (correct_matches(c, pairs) for c in (alone, glued))
    assert good_glued > 1.05 * good_alone
    assert share_glued > share_alone - 0.01


def test_points_that_find_their_partner_are_not_dropped() -> None:
    """On other pairs than those on which the thresholds were chosen: rendered, with the true motion known."""
    matcher = create_matcher(FrontEndConfig(extractor=EXTRACTOR))
    assert isinstance(matcher, LightGlue)
    least = matcher.graphs.matchability_thresholds
    num_correct, num_kept, points_kept = 0, 0, []
    for frame0, frame1, cam1_from_cam0 in wide_pairs():
        features0, features1 = matcher.extract(frame0.image), matcher.extract(frame1.image)
        record, matches = record_pair(features0, features1, matcher.graphs, matcher.rules.min_score)
        stays = np.ones(len(features0) + len(features1), np.bool_)
        for stage in record.stages[:-1]:
            stays &= stage.matchability >= np.float32(least[stage.layers_done - 1])
        points_kept.append(stays.mean())
        for (i, j), point0, point1 in zip(record.matches, matches.points0, matches.points1, strict=True):
            ends = point0[None], point1[None], frame0.camera, frame1.camera
            if epipolar_precision(*ends, cam1_from_cam0, MAX_ERROR):
                num_correct += 2
                num_kept += int(stays[i]) + int(stays[len(features0) + j])
    assert num_correct > 400
    assert num_kept >= 0.99 * num_correct
    assert np.mean(points_kept) < 0.6


@pytest.mark.data
@pytest.mark.slow
def test_poses_are_as_good_as_with_all_layers_and_points(shared_data: Path) -> None:
    """AUC up to 10 degrees, mean of three sets of pairs of a room, a road and two buildings."""
    shipped, patient = (
        np.mean([_auc(shared_data / f"pairs/{name}.json", matcher) for name in PAIR_SETS])
        for matcher in (MatcherConfig(), MatcherConfig(depth_confidence=1.0, width_confidence=1.0))
    )
    assert shipped > patient - 0.005


def _auc(pairs: Path, matcher: MatcherConfig) -> float:
    return evaluate_pairs(pairs, FrontEndConfig(matcher=matcher), ("poselib",)).estimators["poselib"].auc[10.0]


@pytest.mark.data
def test_it_looks_longer_at_pairs_with_less_in_common(shared_data: Path) -> None:
    """Layers run on frames that follow each other, and on others two seconds apart of a hand, one of a car."""
    matcher = create_matcher(FrontEndConfig())
    near, far = [], []
    for name, gap in (("7scenes_redkitchen", 60), ("kitti_seq1", 10)):
        images = _images(shared_data / "sequences" / name)
        near += [_layers_run(matcher, images[start], images[start + 1]) for start in (0, 12, 24, 36)]
        far += [_layers_run(matcher, images[start], images[start + gap]) for start in (0, 12, 24, 36)]
    assert np.median(near) <= 3
    assert np.mean(far) > np.mean(near) + 0.5


def _images(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.color.jpg")) or sorted(folder.rglob("*.png"))
    assert len(found) > 37
    return found


def _layers_run(matcher: Matcher, *paths: Path) -> int:
    layers_run = matcher.match(*(matcher.extract(read_image(path)) for path in paths)).layers_run
    assert layers_run is not None
    return layers_run


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the networks of a package lie that was installed without any."""
    module = tmp_path / "lib/python3/site-packages/feature_matcher_ros/runtimes/shipped_graphs.py"
    monkeypatch.setattr("feature_matcher_ros.runtimes.shipped_graphs.__file__", str(module))
    return tmp_path / "share/feature_matcher_ros/engines"


def test_an_installed_package_finds_its_networks_in_share(share: Path) -> None:
    (share / "mine").mkdir(parents=True)
    (share / "mine/manifest.json").write_text("{}")
    assert shipped_graphs("mine") == share / "mine"


def test_a_network_that_ships_is_the_default_for_its_points(share: Path, caplog: pytest.LogCaptureFixture) -> None:
    sift, orb = FrontEndConfig(), FrontEndConfig(extractor=ExtractorConfig(name="orb"))
    (share / "lightglue_sift").parent.mkdir(parents=True)
    (share / "lightglue_sift").symlink_to(ROOT / "engines/lightglue_sift")
    assert create_matcher(sift).name == "lightglue"
    assert not any("mutual_nearest" in message for message in caplog.messages)
    assert create_matcher(orb).name == "mutual_nearest"
    said = "no network for orb points came with this installation: matcher.name is mutual_nearest"
    assert caplog.messages.count(said) == 1
    # One more folder is all that another one takes; this one is of other points, which is found out.
    (share / "lightglue_orb").symlink_to(ROOT / "engines/lightglue_sift")
    with pytest.raises(
        MatcherError, match="which takes float32 of length 128: choose the extractor it was trained for"
    ):
        create_matcher(orb)


def test_a_network_that_should_have_come_is_missed_in_one_sentence(
    share: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert create_matcher(FrontEndConfig()).name == "mutual_nearest"
    assert caplog.messages == ["no network for sift points came with this installation: matcher.name is mutual_nearest"]
    with pytest.raises(RuntimeLoadError, match="no network lightglue_sift came with this installation: give matcher"):
        create_matcher(FrontEndConfig(matcher=MatcherConfig(name="lightglue")))


def test_graphs_that_are_given_say_which_matcher_they_are_for(tmp_path: Path) -> None:
    folder = ROOT / "engines/lightglue_sift"
    assert create_matcher(FrontEndConfig(matcher=MatcherConfig(graphs=str(folder)))).name == "lightglue"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"method": "xfeat"}), encoding="utf-8")
    with pytest.raises(RuntimeLoadError, match="holds the graphs of 'xfeat', which is no matcher: give"):
        create_matcher(FrontEndConfig(matcher=MatcherConfig(graphs=str(tmp_path))))


def test_what_ships_is_small_and_the_settings_for_small_computers_are_valid() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "engines").rglob("*")) < 25e6
    assert (ROOT / "engines/lightglue_sift.safetensors").stat().st_size < 5e6
    assert load_config(ROOT / "config/fast.yaml").extractor.max_image_px == 320
