"""The matcher against one that is written out pair by pair."""

import numpy as np
import pytest
from fakes import FakeMatcher, PointScene, pinhole, random_points, sideways_poses

from feature_matcher_ros.config import ExtractorConfig, FrontEndConfig, MatcherConfig, override
from feature_matcher_ros.datatypes import Features
from feature_matcher_ros.errors import ConfigError, MatcherError
from feature_matcher_ros.extractors import create_extractor
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.matchers.mutual_nearest import MutualNearest

RNG = np.random.default_rng(3)


def features(descriptors: np.ndarray) -> Features:
    numbers = np.arange(len(descriptors), dtype=np.float32)
    return Features(np.stack([numbers, -numbers], axis=1), np.ones_like(numbers), descriptors, (640, 480))


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def matcher(max_ratio: float) -> MutualNearest:
    return MutualNearest(create_extractor(ExtractorConfig()), MatcherConfig(max_ratio=max_ratio))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    if a.dtype == np.uint8:
        return float(sum(bin(int(x) ^ int(y)).count("1") for x, y in zip(a, b, strict=True)))
    return float(np.sqrt(np.sum((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def slow_matches(first: np.ndarray, second: np.ndarray, max_ratio: float) -> dict[tuple[int, int], float]:
    """Index pairs and scores, by loops over all distances."""
    greatest = 8.0 * first.shape[1] if first.dtype == np.uint8 else 2.0
    table = [[distance(a, b) for b in second] for a in first]
    result: dict[tuple[int, int], float] = {}
    for i, row in enumerate(table):
        for j, here in enumerate(row):
            in_row = [d for k, d in enumerate(row) if k != j]
            in_column = [table[k][j] for k in range(len(table)) if k != i]
            rival = min([*in_row, *in_column, greatest])
            if here <= rival and rival > 0 and here / rival <= max_ratio:
                result[i, j] = 1.0 - here / rival
    return result


def noisy_pair(kind: str, num0: int, num1: int) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of which some belong together."""
    common = min(num0, num1) // 2
    if kind == "binary":
        first, second = (RNG.integers(0, 256, (n, 32), dtype=np.uint8) for n in (num0, num1))
        second[:common] = first[:common] ^ np.packbits(RNG.random((common, 256)) < 0.15, axis=1)
    else:
        first, second = (unit(RNG.normal(size=(n, 64))) for n in (num0, num1))
        second[:common] = unit(first[:common] + 0.1 * RNG.normal(size=(common, 64)))
    order = RNG.permutation(num1)
    return first, second[order]


@pytest.mark.parametrize("kind", ["float", "binary"])
@pytest.mark.parametrize("sizes", [(60, 45), (30, 80), (1, 1), (1, 7), (2, 1), (2, 2)])
@pytest.mark.parametrize("max_ratio", [0.7, 0.9, 0.99])
def test_matches_and_scores_are_those_of_the_written_out_loops(
    kind: str, sizes: tuple[int, int], max_ratio: float
) -> None:
    first, second = noisy_pair(kind, *sizes)
    matches = matcher(max_ratio).match(features(first), features(second))
    expected = slow_matches(first, second, max_ratio)
    assert matches.indices is not None
    assert {(int(i), int(j)) for i, j in matches.indices} == set(expected)
    wanted = np.array([expected[int(i), int(j)] for i, j in matches.indices])
    np.testing.assert_allclose(matches.scores, wanted, atol=2e-3)
    np.testing.assert_array_equal(matches.points0[:, 0], matches.indices[:, 0])
    np.testing.assert_array_equal(matches.points1[:, 0], matches.indices[:, 1])
    assert np.all(np.diff(matches.indices[:, 0]) > 0)


def test_both_directions_give_the_same_matches() -> None:
    first, second = noisy_pair("float", 80, 70)
    there = matcher(0.9).match(features(first), features(second))
    back = matcher(0.9).match(features(second), features(first))
    assert {(i, j) for i, j in there.indices.tolist()} == {(j, i) for i, j in back.indices.tolist()}


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_equal_descriptors_are_no_match_unless_the_test_is_off(dtype: type) -> None:
    same = np.ones((5, 4), dtype) if dtype is np.uint8 else np.full((5, 4), 0.5, dtype)
    assert len(matcher(0.99).match(features(same), features(same))) == 0
    off = matcher(1.0).match(features(same), features(same))
    assert len(set(off.indices[:, 0].tolist())) == len(set(off.indices[:, 1].tolist())) == len(off) == 1
    assert off.scores.tolist() == [0.0]


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0)])
def test_without_features_there_are_no_matches(sizes: tuple[int, int]) -> None:
    matches = matcher(0.9).match(*(features(unit(RNG.normal(size=(n, 8)))) for n in sizes))
    assert len(matches) == 0
    assert matches.points0.shape == matches.points1.shape == matches.indices.shape == (0, 2)
    assert (matches.points0.dtype, matches.scores.dtype, matches.indices.dtype) == (np.float32, np.float32, np.int32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3.0])
def test_descriptors_that_cannot_be_compared_are_refused(bad: float) -> None:
    good = unit(RNG.normal(size=(4, 8)))
    wrong = good.copy()
    wrong[2, 1] = bad
    with pytest.raises(MatcherError, match=r"1 of the 4 descriptors of image 1 .*: have the extractor"):
        matcher(0.9).match(features(good), features(wrong))


def test_descriptors_of_two_kinds_are_refused() -> None:
    binary, short, long = np.zeros((3, 32), np.uint8), unit(RNG.normal(size=(3, 64))), unit(RNG.normal(size=(3, 128)))
    for other in (binary, short):
        with pytest.raises(MatcherError, match=r"float32 of length 128 .*: extract both images with the same"):
            matcher(0.9).match(features(long), features(other))


def test_the_configured_matcher_is_built() -> None:
    config = override(
        FrontEndConfig(), {"extractor.name": "orb", "extractor.max_keypoints": 50, "matcher.name": "mutual_nearest"}
    )
    built = create_matcher(config)
    assert built.name == "mutual_nearest"
    image = RNG.integers(0, 256, (200, 200), dtype=np.uint8)
    assert built.extract(image).descriptors.shape == (50, 32)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"matcher\.name = 'magic' is unknown: choose"):
        create_matcher(FrontEndConfig(matcher=MatcherConfig(name="magic")))
    with pytest.raises(ConfigError, match=r"extractor\.name = 'magic' is unknown: choose"):
        create_extractor(ExtractorConfig(name="magic"))


def test_the_fake_matcher_finds_true_matches_and_as_many_outliers_as_wanted() -> None:
    scene = PointScene(random_points(), pinhole(), sideways_poses(4))
    fake = FakeMatcher(scene, outlier_ratio=0.25)
    pair = [fake.extract(scene.frame(number).image) for number in (0, 3)]
    matches = fake.match(*pair)
    ids0, ids1 = (f.descriptors[matches.indices[:, side], 0] for side, f in enumerate(pair))
    assert len(matches) > 250
    assert np.mean(ids0 != ids1) == pytest.approx(0.25, abs=0.01)
