"""Detector-free matchers on image pairs: their benchmark, and what an evaluation says of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from image_pairs_scene import write_pairs

torch = pytest.importorskip("torch", reason="exporting networks needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip("onnx", reason="the export needs onnx: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.cli import main  # noqa: E402
from feature_matcher_ros.config import FrontEndConfig, override  # noqa: E402
from feature_matcher_ros.errors import RuntimeLoadError  # noqa: E402
from feature_matcher_ros.evaluation.dense_benchmark import DenseSetting, dense_table, run_dense_benchmark  # noqa: E402
from feature_matcher_ros.evaluation.evaluate_pairs import evaluate_pairs  # noqa: E402
from feature_matcher_ros.export.dense_to_onnx import export_dense  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin  # noqa: E402
from feature_matcher_ros.geometry import pose_from  # noqa: E402
from feature_matcher_ros.models.dense_config import EfficientLoftrConfig, LoftrConfig  # noqa: E402
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr  # noqa: E402
from feature_matcher_ros.models.loftr import Loftr  # noqa: E402
from feature_matcher_ros.runtimes.shipped_graphs import shipped_graphs  # noqa: E402


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.manual_seed(0)
    networks = {
        "efficient": EfficientLoftr(EfficientLoftrConfig(widths=(12, 16, 32), blocks=(1, 1, 2), heads=1, rounds=1)),
        "loftr": Loftr(LoftrConfig(widths=(16, 16, 32), heads=1, fine_heads=1, rounds=1)),
    }
    place = tmp_path_factory.mktemp("graphs")
    for name, network in networks.items():
        export_dense(network.eval().requires_grad_(False), Origin(name, "CC0-1.0", "this test"), place / name)
    return place / "efficient", place / "loftr"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    motions = [pose_from(np.eye(3), [0.1 * number, 0.0, 0.0]) for number in (1, 2)]
    return write_pairs(tmp_path_factory.mktemp("pairs"), motions, motions)


def test_all_networks_take_turns_at_all_sizes(folders: tuple[Path, Path], pairs: Path) -> None:
    setting = DenseSetting(folders, (pairs,), sizes=((96, 64), (200, 120)), num_threads=1, max_pairs=2, repetitions=1)
    benchmark = run_dense_benchmark(setting)
    contenders = [
        ("efficient_loftr efficient", "full"),
        ("efficient_loftr efficient", "optimized"),
        ("loftr loftr", "full"),
    ]
    assert [(row.network, row.coarse) for row in benchmark.rows] == contenders * 2
    assert [row.tokens for row in benchmark.rows] == [6, 6, 96, 28, 28, 375]  # 200x120 is padded to 224x128 in front
    for row in benchmark.rows:
        assert row.num_turns == 2
        assert 0.0 < row.cached_s < row.pair_s
        assert row.over_uncached > 1.0
        assert row.gflops == pytest.approx(row.gflop / row.pair_s)
        assert (row.over_last is None) == row.network.startswith("loftr")
    header, rows = dense_table(benchmark)
    assert [len(row) for row in rows] == [len(header)] * 6


def test_no_extractor_is_recorded_where_none_is_used(folders: tuple[Path, Path], pairs: Path) -> None:
    values = {"matcher.name": "loftr", "matcher.graphs": str(folders[1]), "matcher.min_score": 0.0}
    evaluation = evaluate_pairs(pairs, override(FrontEndConfig(), values), ("poselib",))
    assert (evaluation.matcher, evaluation.extractor, evaluation.max_keypoints) == ("loftr", None, None)
    assert evaluation.num_pairs == 2
    assert evaluation.mean_num_matches > 0


@pytest.mark.slow
def test_the_command_writes_what_it_measured(
    folders: tuple[Path, Path], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "bench.json"
    arguments = ["--graphs", folders[1], "--pairs", pairs, "--threads", 1, "-o", output]
    monkeypatch.setattr(sys, "argv", ["feature-matcher", "bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    content = json.loads(output.read_text())
    assert [row["size"] for row in content["rows"]] == [[640, 480], [320, 240]]


def test_other_networks_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(RuntimeLoadError, match="holds the graphs of 'lightglue'"):
        run_dense_benchmark(DenseSetting((folders[0], shipped_graphs("lightglue_sift"))))
