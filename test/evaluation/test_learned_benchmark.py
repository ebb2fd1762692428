"""The benchmark of a learned matcher: it times what it says, and only what computes the same."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from feature_matcher_ros.cli import main
from feature_matcher_ros.datatypes import Features, Matches
from feature_matcher_ros.errors import MatcherError, OutputError
from feature_matcher_ros.evaluation import learned_benchmark, learned_contenders
from feature_matcher_ros.evaluation.benchmark_machine import MatrixProduct
from feature_matcher_ros.evaluation.budget_benchmark import budget_table, measure_budget
from feature_matcher_ros.evaluation.learned_benchmark import (
    LearnedBenchmark,
    LearnedRow,
    learned_table,
    network_gflop,
    superglue_gflop,
)
from feature_matcher_ros.evaluation.learned_benchmark_plot import plot_learned_benchmark
from feature_matcher_ros.evaluation.learned_contenders import MODES, LearnedSetting, require_same_matches
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, Stage
from feature_matcher_ros.models.dense_config import DenseTuning
from feature_matcher_ros.models.lightglue_config import LightGlueConfig
from feature_matcher_ros.models.superglue_config import SuperGlueConfig

ROW = LearnedRow("onnx", "all layers", 512, 500.0, 4, 5.5, 40.0, 70.0, 1.5, None, 60.0, 0.5)
BENCHMARK = LearnedBenchmark("a machine", "lightglue net", "sift", ("pairs",), 2, 120.0, 140.0, ("a note",), (ROW,), ())


def test_the_arithmetic_of_a_pass_is_that_of_its_products() -> None:
    """Every product of matrices (m, k) by (k, n) has m k n multiplications."""
    width, n0, n1 = 256, 300, 200
    projections = [(width, 3 * width), (2 * width, 2 * width), (2 * width, width)]  # q k v, then the hidden layer
    shared = [(width, 2 * width), (2 * width, 2 * width), (2 * width, width)]  # across, queries and keys are one
    layer = sum((n0 + n1) * k * n for k, n in projections + shared)
    layer += sum(2 * n * m * width for n, m in ((n0, n0), (n1, n1), (n0, n1), (n1, n0)))
    head = (n0 + n1) * width**2 + n0 * n1 * width
    stages = tuple(Stage(end, None, None) for end in (2, 3))  # type: ignore[arg-type]
    graphs = LightGlueGraphs(LightGlueConfig(128, width, 4, 3), None, stages)  # type: ignore[arg-type]
    nothing = np.zeros((0, 2), np.float32)
    matches = Matches(nothing, nothing, np.zeros(0, np.float32), points_per_stage=np.array([[n0, n1]], np.int32))
    assert network_gflop(graphs, matches) == pytest.approx(2e-9 * (2 * layer + head))
    longer = replace(matches, points_per_stage=np.array([[n0, n1], [n0, n1]], np.int32))
    assert network_gflop(graphs, longer) == pytest.approx(2e-9 * (3 * layer + head))
    assert network_gflop(graphs, replace(matches, points_per_stage=np.zeros((0, 2), np.int32))) == 0.0


def test_a_matrix_product_is_not_faster_than_the_clock_says() -> None:
    assert 0.1 < MatrixProduct(256).gflops() < 10_000


def test_the_table_the_file_and_the_plot_hold_the_numbers(tmp_path: Path) -> None:
    slower = replace(ROW, runtime="torch", median_ms=60.0, over_torch=None)
    larger = replace(ROW, max_keypoints=1024, num_points=1000.0, median_ms=100.0)
    benchmark = replace(BENCHMARK, rows=(ROW, slower, larger))
    header, rows = learned_table(benchmark)
    assert [len(row) for row in rows] == [len(header)] * 3
    first = dict(zip(header, rows[0], strict=True))
    assert (first["ms"], first["over torch"], first["over all layers"], first["of GEMM"]) == (
        "40.0",
        "1.50",
        "",
        "50 %",
    )
    plot_learned_benchmark(benchmark, tmp_path / "new" / "cost.png")
    picture = cv2.imread(str(tmp_path / "new" / "cost.png"))
    assert picture.shape[:2] == (600, 960) and (picture[0, 0] == 255).all() and picture.min() < 100
    for name in ("cost.txt", "cost.png/cost.png"):
        with pytest.raises(OutputError, match="choose another --plot"):
            plot_learned_benchmark(benchmark, tmp_path / "new" / name)


def test_all_contenders_take_turns_on_the_same_points(
    network: tuple[Path, Path], pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch's compiler, which takes a minute; that it is missing is said."""
    monkeypatch.setattr(learned_contenders, "_problem_of", lambda graphs: "no compiler")
    setting = LearnedSetting(network[0], None, network[1], pairs=(pairs,), keypoints=(60,), repetitions=2)
    measured = learned_benchmark._measure(setting, 60)
    assert {(row.runtime, row.mode) for row in measured.rows} == {
        (name, mode) for name in ("torch", "onnx") for mode in MODES
    }
    assert measured.notes == ("torch.compile is left out: no compiler",)
    assert len(measured.gemm_gflops) == 4
    for row in measured.rows:
        assert (row.num_turns, row.max_keypoints, row.layers_run) == (4, 60, 3.0)  # random weights are never sure
        assert 40 <= row.num_points <= 60 and row.median_ms > 0 and row.cpu_ms > 0 and 0 < row.gemm_share < 1
        assert (row.over_torch is None) == (row.runtime == "torch")
        assert (row.over_all_layers is None) == (row.mode == "all layers")
        assert (row.over_depth is not None) == (row.mode == "depth and width")


def test_superglue_takes_its_turns_beside_lightglue(network: tuple[Path, Path], pairs: Path, tmp_path: Path) -> None:
    """Both on the same points; it has one mode, and its layers are more work than LightGlue's."""
    import torch
    from superglue_checkpoint import nearest_neighbour_tensors

    from feature_matcher_ros.export.from_checkpoint import export_checkpoint

    torch.save(nearest_neighbour_tensors(width=128), tmp_path / "nearest.pth")
    export_checkpoint(tmp_path / "nearest.pth", tmp_path / "superglue", licence="CC0-1.0")
    setting = LearnedSetting(network[0], superglue=tmp_path / "superglue", pairs=(pairs,), keypoints=(60,))
    rows = {row.mode: row for row in learned_benchmark._measure(setting, 60).rows}
    assert rows.keys() == {*MODES, "superglue"}
    found = rows["superglue"]
    assert (found.runtime, found.layers_run, found.over_torch, found.over_depth) == ("onnx", 1.0, None, None)
    assert found.over_all_layers is not None and found.num_turns == rows["all layers"].num_turns
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["feature-matcher", "bench", "--graphs", str(tmp_path / "superglue")])
        main()
    assert stop.value.code == 1


def test_the_arithmetic_of_superglue_is_that_of_its_products() -> None:
    """Every product of matrices (m, k) by (k, n) has m k n multiplications; a layer is twice an attention."""
    config, n0, n1 = SuperGlueConfig(width=8, encoder_widths=(5,), layers=3), 30, 20
    encoder = sum((n0 + n1) * k * n for k, n in ((3, 5), (5, 8)))
    linear = sum((n0 + n1) * k * n for k, n in [(8, 8)] * 4 + [(16, 16), (16, 8)])
    attended = [(n0, n0), (n1, n1)], [(n0, n1), (n1, n0)]
    layers = 3 * sum(linear + sum(2 * n * m * 8 for n, m in pairs) for pairs in attended)
    head = (n0 + n1) * 8 * 8 + n0 * n1 * 8
    assert superglue_gflop(config, (n0, n1)) == pytest.approx(2e-9 * (encoder + layers + head))


def test_a_budget_is_measured_on_the_network_itself(network: tuple[Path, Path], pairs: Path) -> None:
    setting = LearnedSetting(network[0], pairs=(pairs,), keypoints=(60,))
    matcher = learned_contenders.contenders(setting)[0]["onnx", "all layers"]
    before, points = matcher.rules, learned_contenders.point_pairs(setting, 60)
    ample, tiny = (measure_budget(matcher, points, 60, all_layers_ms) for all_layers_ms in (1e6, 1e-6))
    assert (ample.layers_run, ample.over_budget) == (3.0, 0.0)
    assert (tiny.layers_run, tiny.over_budget) == (1.0, 1.0)  # no less than a layer, as there must be matches
    assert ample.num_turns == tiny.num_turns == 200 and ample.median_ms <= ample.p99_ms
    assert matcher.rules == before
    header, rows = budget_table([ample])
    assert dict(zip(header, rows[0], strict=True))["budget ms"] == "500000.0"


def test_torch_stops_and_drops_by_the_thresholds_of_the_graphs(
    network: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_matcher_ros.export.from_checkpoint import export_checkpoint

    monkeypatch.setattr(learned_contenders, "_problem_of", lambda graphs: "no compiler")
    export_checkpoint(network[1], tmp_path, "MIT", DenseTuning((0.01, 0.01, 1.0)), (0.0, 0.7, 0.0))
    matchers, _ = learned_contenders.contenders(LearnedSetting(tmp_path, None, network[1]))
    rng = np.random.default_rng(0)
    points, sizes = rng.uniform(0.0, 64.0, (40, 2)).astype(np.float32), np.ones(40, np.float32)
    descriptors = rng.uniform(0.0, 0.1, (40, 128)).astype(np.float32)
    given = Features(points, sizes, descriptors, (64, 64), scales=sizes, orientations=sizes)
    layers_run = {key: matcher.match(given, given).layers_run for key, matcher in matchers.items()}
    expected = {"all layers": 3, "width": 2, "depth": 1, "depth and width": 1}  # none is as matchable as 0.7
    assert layers_run == {key: expected[key[1]] for key in matchers}


class _Finds:
    """A matcher that finds what it is told to."""

    def __init__(self, *indices: tuple[int, int]) -> None:
        self._indices = np.array(indices, np.int32).reshape(-1, 2)

    def match(self, features0: Features, features1: Features) -> Matches:
        points = self._indices.astype(np.float32)
        return Matches(points, points, np.ones(len(points), np.float32), self._indices)


def test_weights_of_another_network_are_refused() -> None:
    none = Features(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 4), np.float32), (64, 48))
    many = [(number, number) for number in range(40)]
    for found, is_same in ((many, True), (many[1:], True), (many[4:], False), ([], False)):
        matchers = {("torch", "depth"): _Finds(*found), ("onnx", "depth"): _Finds(*many)}
        if is_same:
            require_same_matches(matchers, (none, none))  # type: ignore[arg-type]
        else:
            with pytest.raises(MatcherError, match=rf"torch finds {len(found)} matches and the graphs 40.*not those"):
                require_same_matches(matchers, (none, none))  # type: ignore[arg-type]


def test_the_command_times_the_graphs_alone_where_there_are_no_weights(
    network: tuple[Path, Path], pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "bench",
        "--graphs",
        str(network[0]),
        "--pairs",
        str(pairs),
        "--keypoints",
        "40",
        "--keypoints",
        "20",
        "--threads",
        "1",
    ]
    output = ["-o", str(tmp_path / "bench.json"), "--plot", str(tmp_path / "cost.png")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["feature-matcher", *arguments, *output])
        main()
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "torch is left out" in printed and "GFLOP/s" in printed
    content = json.loads((tmp_path / "bench.json").read_text())
    assert [row["max_keypoints"] for row in content["rows"]] == [20] * 4 + [40] * 4
    assert (content["num_threads"], content["pairs"], content["extractor"]) == (1, ["pairs"], "sift")
    assert [row["max_keypoints"] for row in content["budgets"]] == [20, 40]
    assert "with a budget of half" in printed and (tmp_path / "cost.png").is_file()
