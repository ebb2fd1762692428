"""The detector-free matcher with small networks: what it does with images of all kinds, and when it stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting networks needs torch: pip install feature_matcher_ros[torch]")

from tiny_dense_networks import NETWORKS, exported, untrained, untrained_loftr  # noqa: E402

from feature_matcher_ros.config import FrontEndConfig, MatcherConfig, override  # noqa: E402
from feature_matcher_ros.datatypes import Features, Matches, StopReason  # noqa: E402
from feature_matcher_ros.errors import ConfigError, MatcherError, RuntimeLoadError  # noqa: E402
from feature_matcher_ros.export.dense_to_onnx import dense_by_torch  # noqa: E402
from feature_matcher_ros.export.from_checkpoint import export_checkpoint  # noqa: E402
from feature_matcher_ros.matchers import create_matcher, follow_config  # noqa: E402
from feature_matcher_ros.matchers.adaptive import StopRule  # noqa: E402
from feature_matcher_ros.matchers.dense_graphs import DenseGraphs, open_dense  # noqa: E402
from feature_matcher_ros.matchers.detector_free import DenseRules, DetectorFree, calibrated  # noqa: E402
from feature_matcher_ros.models.dense_config import DENSE_METHODS  # noqa: E402
from feature_matcher_ros.runtimes.shipped_graphs import shipped_graphs  # noqa: E402

ALL = DenseRules(min_score=0.0, stop=StopRule(None))
ODD_SIZES = ((100, 75), (161, 97), (320, 240))  # (width, height)


@pytest.fixture(scope="module", params=NETWORKS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(request.param, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def graphs(folder: Path) -> DenseGraphs:
    return open_dense(folder, num_threads=1)


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX)


def matched(matcher: DetectorFree, image0: np.ndarray, image1: np.ndarray) -> Matches:
    matches = matcher.match(matcher.extract(image0), matcher.extract(image1))
    for points, image in ((matches.points0, image0), (matches.points1, image1)):
        assert points.shape == (len(matches), 2)
        assert points.dtype == np.float32
        assert ((points >= -0.5) & (points < np.array(image.shape[1::-1]) - 0.5)).all()
    assert matches.indices is None
    assert np.isfinite(matches.scores).all()
    assert ((matches.scores >= 0) & (matches.scores <= 1)).all()
    return matches


@pytest.mark.parametrize("size", ODD_SIZES)
def test_an_image_matches_itself(graphs: DenseGraphs, size: tuple[int, int]) -> None:
    image = texture(*size)
    matches = matched(DetectorFree(graphs, ALL), image, image)
    inner = (-(-size[0] // 8) - 4) * (-(-size[1] // 8) - 4)
    assert 0.7 * inner <= len(matches) <= inner
    assert np.median(np.abs(matches.points0 - matches.points1)) <= 8.0


@pytest.mark.parametrize("folder", ["efficient_loftr"], indirect=True)
def test_a_shifted_image_is_found_again(graphs: DenseGraphs) -> None:
    """By a multiple of 32 pixels, so that no feature depends on where the grid lies.

    LoFTR adds the place of a cell to its features, which an untrained network cannot tell from what is seen there.
    """
    image = texture(384, 256)
    matches = matched(DetectorFree(graphs, DenseRules(min_score=0.01)), image[:, :352], image[:, 32:])
    shift = matches.points0 - matches.points1 - (32.0, 0.0)
    assert len(matches) > 100
    assert np.mean(np.abs(shift).max(axis=1) <= 8.0) > 0.8


def test_images_of_different_sizes(graphs: DenseGraphs) -> None:
    image = texture(200, 120)
    matches = matched(DetectorFree(graphs, ALL), image, texture(90, 161, seed=1))
    assert len(matches) > 0


def test_padding_is_matched_by_nothing(graphs: DenseGraphs) -> None:
    """Cells that lie in the padding, or within two of it, are in no match."""
    image = texture(117, 85)  # 15 x 11 cells
    matches = matched(DetectorFree(graphs, ALL), image, image)
    assert matches.points0.max(axis=0).tolist() <= [12 * 8 + 4.0, 8 * 8 + 4.0]


@pytest.mark.parametrize("is_optimized", [False, True])
def test_images_that_show_nothing(folder: Path, is_optimized: bool) -> None:
    """Constant, smaller than a window, smaller than the border."""
    if is_optimized and not open_dense(folder, num_threads=1).config.has_optimized:
        with pytest.raises(RuntimeLoadError, match="compares by probabilities alone"):
            open_dense(folder, is_optimized)
        return
    matcher = DetectorFree(open_dense(folder, is_optimized, num_threads=1), ALL)
    rich = texture(160, 120)
    for poor in (np.full((120, 160), 77, np.uint8), texture(5, 3), texture(32, 32)):
        features = matcher.extract(poor)
        assert len(features) == 0
        for pair in ((poor, rich), (rich, poor), (poor, poor)):
            matches = matched(matcher, *pair)
            assert (len(matches), matches.layers_run, matches.stop_reason) == (0, 0, StopReason.NOTHING_MATCHABLE)


def test_a_single_cell_and_too_many(graphs: DenseGraphs) -> None:
    """The smallest image with a cell that may be matched, and a limit to the number of matches."""
    small = texture(40, 40)
    assert len(matched(DetectorFree(graphs, ALL), small, small)) == 1
    image = texture(320, 240)
    every = matched(DetectorFree(graphs, ALL), image, image)
    best = matched(DetectorFree(graphs, replace(ALL, max_matches=50)), image, image)
    assert len(every) > len(best) == 50
    assert np.isclose(np.sort(every.scores)[-50:], np.sort(best.scores)).all()


def test_large_images_are_shrunk_and_mapped_back(graphs: DenseGraphs) -> None:
    image = texture(320, 240)
    matcher = DetectorFree(graphs, replace(ALL, max_image_px=160))
    assert matcher.extract(image).content_size == (160, 120)
    large = matched(matcher, image, image)
    small = matched(matcher, *[cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)] * 2)
    assert np.abs(large.points0 - ((small.points0 + 0.5) * 2 - 0.5)).max() < 1e-3


def test_colour_and_mask(graphs: DenseGraphs) -> None:
    image = texture(160, 120)
    matcher = DetectorFree(graphs, ALL)
    mask = np.zeros_like(image)
    mask[:, :80] = 255
    features = matcher.extract(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), mask)
    assert 0 < len(features) < len(matcher.extract(image))
    matches = matcher.match(features, matcher.extract(image))
    assert matches.points0[:, 0].max() < 79.5
    with pytest.raises(MatcherError, match=r"a mask of shape \(3, 3\) cannot cover"):
        matcher.extract(image, np.ones((3, 3), np.uint8))


@pytest.mark.parametrize(
    ("bias", "rounds", "reason"), [(9.0, 1, StopReason.CONFIDENT), (-9.0, 2, StopReason.LAST_LAYER)]
)
def test_it_stops_when_confident(bias: float, rounds: int, reason: StopReason) -> None:
    network = untrained()
    network.token_confidence[0].weight.zero_()
    network.token_confidence[0].bias.fill_(bias)
    image = texture(161, 97)
    matches = matched(DetectorFree(dense_by_torch(network), replace(ALL, stop=StopRule(0.95))), image, image)
    assert (matches.layers_run, matches.stop_reason) == (rounds, reason)
    assert list(matches.stages_ms) == [*(f"round{number + 1}" for number in range(rounds)), "coarse", "fine"]
    assert matched(DetectorFree(dense_by_torch(network), ALL), image, image).layers_run == 2


def test_published_thresholds_of_both_modes_mean_the_same() -> None:
    assert calibrated(np.float32([20.0, 25.0])) == pytest.approx([0.1, 0.2])
    assert calibrated(np.float32([-1e9, 1e9])) == pytest.approx([0.0, 1.0])


def test_rules_may_change_between_pairs(graphs: DenseGraphs) -> None:
    matcher, image = DetectorFree(graphs), texture(128, 96)
    matcher.follow(ALL)
    every = matched(matcher, image, image)
    score = float(np.median(every.scores))
    follow_config(matcher, MatcherConfig(name=matcher.name, min_score=score))
    assert len(matched(matcher, image, image)) == np.count_nonzero(every.scores >= np.float32(score)) < len(every)
    with pytest.raises(MatcherError, match="do not fit"):
        follow_config(matcher, MatcherConfig(name=matcher.name, confidence_thresholds=(0.9,)))
    assert matcher.rules.min_score == score


def test_wrong_input_is_explained(graphs: DenseGraphs) -> None:
    matcher = DetectorFree(graphs)
    points = Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.zeros((1, 4), np.float32), (64, 64))
    with pytest.raises(MatcherError, match="cannot be matched without keypoints"):
        matcher.match(points, points)
    with pytest.raises(MatcherError, match="3 confidence thresholds do not fit a network of 2 layers"):
        DetectorFree(graphs, replace(ALL, thresholds=(0.9, 0.9, 0.9)))
    with pytest.raises(RuntimeLoadError, match="holds the graphs of 'lightglue', not of efficient_loftr"):
        open_dense(shipped_graphs("lightglue_sift"))


@pytest.mark.parametrize("method", DENSE_METHODS)
def test_from_a_checkpoint_to_a_configured_matcher(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_matcher_ros.runtimes.shipped_graphs.__file__", str(tmp_path / "a/b/c.py"))  # none ship
    network = untrained() if method == "efficient_loftr" else untrained_loftr()
    weights = tmp_path / "tiny.pth"
    torch.save({"state_dict": {f"matcher.{name}": t for name, t in network.state_dict().items()}}, weights)
    manifest = export_checkpoint(weights, tmp_path / "graphs", "Apache-2.0")
    assert manifest.method == method
    config = override(FrontEndConfig(), {"matcher.name": method})
    with pytest.raises(ConfigError, match="needs a network and none ships"):
        create_matcher(config)
    config = override(config, {"matcher.graphs": str(tmp_path / "graphs"), "matcher.min_score": 0.0})
    matcher = create_matcher(config)
    assert matcher.name == method
    assert create_matcher(override(config, {"matcher.name": "auto"})).name == method
    assert len(matched(matcher, texture(160, 120), texture(160, 120))) > 50
    other = next(name for name in DENSE_METHODS if name != method)
    with pytest.raises(RuntimeLoadError, match=f"holds the graphs of '{method}', not of {other}: set matcher.name"):
        create_matcher(override(config, {"matcher.name": other}))
