"""Engines of networks that match without points: for which images, built by the real library, executed by the fake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="engines are built from graphs with onnx: pip install onnx")
pytest.importorskip("torch", reason="exporting networks needs torch: pip install feature_matcher_ros[torch]")

from gpu_machine import Machine, gpu_machine  # noqa: E402
from half_products import num_half_products  # noqa: E402
from tiny_dense_networks import exported  # noqa: E402

from feature_matcher_ros.config import FrontEndConfig, override  # noqa: E402
from feature_matcher_ros.errors import MatcherError, RuntimeLoadError  # noqa: E402
from feature_matcher_ros.export.engine_acceptance import Trial, compare_on_cpu  # noqa: E402
from feature_matcher_ros.export.engine_profiles import EngineBudget, dense_ranges  # noqa: E402
from feature_matcher_ros.export.missing_engines import build_missing_engines  # noqa: E402
from feature_matcher_ros.export.to_tensorrt import (  # noqa: E402
    EngineOptions,
    build_network,
    planned_engines,
    precisions_of,
    prepared_graph,
)
from feature_matcher_ros.matchers import create_matcher  # noqa: E402
from feature_matcher_ros.matchers.adaptive import StopRule  # noqa: E402
from feature_matcher_ros.matchers.dense_graphs import open_dense  # noqa: E402
from feature_matcher_ros.matchers.detector_free import DenseRules, DetectorFree  # noqa: E402
from feature_matcher_ros.models.dense_config import DenseTuning, EfficientLoftrConfig, LoftrConfig  # noqa: E402
from feature_matcher_ros.runtimes.engine_cache import EngineCache  # noqa: E402
from feature_matcher_ros.runtimes.manifest import read_manifest  # noqa: E402

ALL = DenseRules(min_score=0.0, stop=StopRule(None))
BUDGET = EngineBudget(max_keypoints=400, max_image_px=192)
# No library can say before it computes how large their results are, or it cannot build them at all.
UNFIT = {"NonZero", "Compress", "Unique", "If", "Loop", "NonMaxSuppression"}


@pytest.fixture(
    scope="module",
    params=["efficient_loftr", "loftr", pytest.param("loftr by transport", marks=pytest.mark.slow)],
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(request.param, tmp_path_factory.getbasetemp())


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX)


def test_profiles_cover_images_lying_and_standing_up_to_the_budget() -> None:
    ranges = dense_ranges(EngineBudget(1000, 700), EfficientLoftrConfig(), DenseTuning())
    assert ranges["height"] == (32, 480, 704) and ranges["width"] == (32, 640, 704)
    assert ranges["rows0"] == ranges["rows"] == (4, 60, 88) and ranges["columns1"] == (4, 80, 88)
    assert ranges["map2_rows_0"] == (16, 240, 352) and ranges["map4_columns_1"] == (8, 160, 176)
    assert ranges["matches"] == (1, 500, 1000)
    default = dense_ranges(EngineBudget(), LoftrConfig(), DenseTuning())
    assert default["width"] == (8, 640, 640), "as suits the network"
    assert "map4_rows_0" not in default


def test_every_size_of_image_is_a_profile_and_other_graphs_have_one(folder: Path) -> None:
    manifest = read_manifest(folder)
    budgets = [EngineBudget(keypoints, pixels) for keypoints in (100, 400) for pixels in (96, 192)]
    plans = planned_engines(folder, budgets, precisions_of(manifest, "float16"))
    assert {name: len(plan.profiles) for name, plan in plans.items()} == {
        name: 4 if name == "fine" else 2 for name in manifest.graphs
    }
    widths = [profile.shapes["image"][2][3] for profile in plans["backbone"].profiles]
    assert widths == [96, 192]
    half = {name for name, plan in plans.items() if plan.precision == "float16"}
    assert half == {"backbone", "fine", *(name for name in manifest.graphs if name.startswith("round"))}


def test_half_precision_is_where_the_work_is_and_decides_nothing(folder: Path) -> None:
    manifest = read_manifest(folder)
    for name in manifest.graphs:
        single, half = (prepared_graph(folder, manifest, name, precision) for precision in ("float32", "float16"))
        assert not {node.op_type for node in single.graph.node} & UNFIT
        onnx.checker.check_model(half, full_check=True)
        assert list(half.graph.input) == list(single.graph.input)
        assert list(half.graph.output) == list(single.graph.output)
        products = sum(node.op_type in ("Conv", "MatMul", "Gemm") for node in half.graph.node)
        assert 0 < num_half_products(half) <= products
        if name == "fine":
            assert num_half_products(half) < products, "the comparison of pixels stays in float32"


@pytest.mark.parametrize("folder", ["efficient_loftr"], indirect=True)
def test_rounding_changes_little_where_features_are_told_apart(folder: Path) -> None:
    from feature_matcher_ros.datatypes import Camera, Frame

    camera = Camera(np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1.0]]), 160, 120)
    image = texture(192, 120)
    frames = [
        Frame(number, np.ascontiguousarray(image[:, 32 * number : 32 * number + 160]), camera) for number in (0, 1)
    ]
    acceptance = compare_on_cpu(folder, Trial([(frames[0], frames[1])]))(
        precisions_of(read_manifest(folder), "float16")
    )
    assert acceptance.num_matches > 20
    assert 0.7 < acceptance.retention <= 1.0 and 0.0 < acceptance.mean_score_difference < 0.05


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    with gpu_machine(monkeypatch, tmp_path) as found:
        yield found


def test_pairs_of_odd_sizes_match_as_on_the_cpu_while_the_keyframe_stays(machine: Machine, folder: Path) -> None:
    build_network(folder, EngineOptions("float32", (BUDGET,)), precisions_of(read_manifest(folder), "float32"))
    by_onnx, by_tensorrt = (DetectorFree(open_dense(folder, runtime=name), ALL) for name in ("onnx", "tensorrt"))
    keyframe = texture(161, 97)
    kept = by_onnx.extract(keyframe), by_tensorrt.extract(keyframe)
    for size in ((161, 97), (100, 75), (90, 161)):
        image = texture(*size, seed=size[0])
        expected, found = (
            matcher.match(features, matcher.extract(image))
            for matcher, features in zip((by_onnx, by_tensorrt), kept, strict=True)
        )
        assert len(expected) > 0
        np.testing.assert_array_equal(found.points0, expected.points0)
        np.testing.assert_array_equal(found.points1, expected.points1)
        np.testing.assert_array_equal(found.scores, expected.scores)
    (backbone,) = (engine for engine in machine.opened if "image" in str(engine.tensors["input"]))
    assert backbone.configs[0].cuda_graph_strategy == "whole"
    assert [engine.configs[0].dynamic_shapes_kernel_specialization_strategy for engine in machine.opened].count(
        "none"
    ) == 1, "but for the matches, sizes are those of one camera"


@pytest.mark.parametrize("folder", ["efficient_loftr"], indirect=True)
def test_frames_of_one_camera_run_by_cuda_graphs_while_keyframes_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The features of the keyframe, of the last frame and of the current one lie at three places, that change roles."""
    with gpu_machine(monkeypatch, tmp_path, "tensorrt", "10.9.0") as machine:
        build_network(folder, EngineOptions("float32", (BUDGET,)), precisions_of(read_manifest(folder), "float32"))
        by_onnx, by_tensorrt = (DetectorFree(open_dense(folder, runtime=name), ALL) for name in ("onnx", "tensorrt"))
        images = [texture(161, 97, seed) for seed in range(11)]
        keyframes = [matcher.extract(texture(161, 97, 99)) for matcher in (by_onnx, by_tensorrt)]
        for number, image in enumerate(images):
            before = machine.driver.num_launched
            current = [matcher.extract(image) for matcher in (by_onnx, by_tensorrt)]
            expected, found = by_onnx.match(keyframes[0], current[0]), by_tensorrt.match(keyframes[1], current[1])
            assert len(expected) > 0
            np.testing.assert_array_equal(found.points0, expected.points0)
            np.testing.assert_array_equal(found.points1, expected.points1)
            np.testing.assert_array_equal(found.scores, expected.scores)
            if number == 8:
                assert machine.driver.num_launched - before >= 4, "backbone, two rounds and what compares the cells"
                keyframes = current
        assert machine.driver.num_launched > 20


def test_no_matches_need_no_engine_and_too_many_are_one_sentence(machine: Machine, folder: Path) -> None:
    budget = EngineBudget(max_keypoints=64, max_image_px=192)
    build_network(folder, EngineOptions("float32", (budget,)), precisions_of(read_manifest(folder), "float32"))
    matcher = DetectorFree(open_dense(folder, runtime="tensorrt"), ALL)
    grey = np.full((97, 161), 128, np.uint8)
    assert len(matcher.match(matcher.extract(grey), matcher.extract(texture(161, 97)))) == 0
    features = matcher.extract(texture(161, 97))
    with pytest.raises(MatcherError, match=r"'fine' takes .*cell0 \(64,\).* --keypoints .* or lower .*max_matches"):
        matcher.match(features, features)
    few = DetectorFree(open_dense(folder, runtime="tensorrt"), DenseRules(min_score=0.0, max_matches=64))
    features = few.extract(texture(161, 97))
    assert 0 < len(few.match(features, features)) <= 64
    with pytest.raises(MatcherError, match=r"'backbone' takes .*192.* --image-px, or lower .*max_image_px"):
        matcher.extract(texture(300, 200))


def test_the_configured_runtime_is_that_of_the_matcher_and_its_engines_are_built(
    machine: Machine, folder: Path
) -> None:
    wanted = {"matcher.name": read_manifest(folder).method, "matcher.graphs": str(folder)}
    config = override(FrontEndConfig(), {**wanted, "matcher.runtime": "tensorrt", "matcher.max_image_px": 200})
    with pytest.raises(RuntimeLoadError, match=r"there is no engine .*run feature-matcher build"):
        create_matcher(config)
    build_missing_engines(config)
    graphs = create_matcher(config).graphs
    assert (graphs.backbone.name, graphs.backbone.precision) == ("tensorrt", "float16")
    backbone = next(engine for engine in machine.opened if "image" in str(engine.tensors["input"]))
    assert backbone.profiles[0]["image"][2][3] in (200, 224), "the largest image that the configuration allows"


REASON = "engines are built with tensorrt-rtx: pip install 'feature_matcher_ros[engines]'"


@pytest.mark.parametrize(
    ("folder", "precision"),
    [
        ("efficient_loftr", "float16"),
        *(
            pytest.param(name, precision, marks=pytest.mark.slow)
            for name in ("efficient_loftr", "loftr", "loftr by transport")
            for precision in ("float16", "float32")
            if (name, precision) != ("efficient_loftr", "float16")
        ),
    ],
    indirect=["folder"],
)
def test_all_graphs_build_without_a_gpu(folder: Path, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason=REASON)
    manifest = read_manifest(folder)
    options = EngineOptions(precision, architectures=("8.9",))
    built = build_network(folder, options, precisions_of(manifest, precision), cache=EngineCache(tmp_path))
    assert [engine.manifest.name for engine in built] == list(manifest.graphs)
    assert all(engine.manifest.num_bytes > 10_000 for engine in built)
