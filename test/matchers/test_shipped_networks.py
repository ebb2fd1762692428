"""The network that comes with the package, on rendered pairs whose truth is known, beside its own descriptors alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from feature_matcher_ros.config import ExtractorConfig, FrontEndConfig, MatcherConfig, load_config
from feature_matcher_ros.datatypes import Float, Frame, Matches
from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.evaluation.demo_scene import demo_frames
from feature_matcher_ros.evaluation.metrics import epipolar_precision
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.geometry import invert_pose
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.runtimes.shipped_graphs import shipped_graphs

ROOT = Path(__file__).parents[2]
EXTRACTOR = ExtractorConfig(name="sift", max_keypoints=512)
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


def test_there_is_none_for_other_points() -> None:
    with pytest.raises(RuntimeLoadError, match="no network lightglue_orb came with this installation"):
        create_matcher(FrontEndConfig(extractor=ExtractorConfig(name="orb"), matcher=MatcherConfig(name="lightglue")))


def test_an_installed_package_finds_its_networks_in_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "lib/python3/site-packages/feature_matcher_ros/runtimes/shipped_graphs.py"
    share = tmp_path / "share/feature_matcher_ros/engines/mine"
    share.mkdir(parents=True)
    (share / "manifest.json").write_text("{}")
    monkeypatch.setattr("feature_matcher_ros.runtimes.shipped_graphs.__file__", str(module))
    assert shipped_graphs("mine") == share


def test_what_ships_is_small_and_the_settings_for_small_computers_are_valid() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "engines").rglob("*")) < 15e6
    assert (ROOT / "engines/lightglue_sift.safetensors").stat().st_size < 5e6
    assert load_config(ROOT / "config/fast.yaml").extractor.max_image_px == 320
