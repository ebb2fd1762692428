"""From weights to poses with SuperGlue on SuperPoint points, as a user goes: export, match, replay, evaluate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import feature_matcher

from feature_matcher_ros.evaluation.pair_table import read_pair_table

torch = pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip("onnx", reason="the export needs onnx: pip install feature_matcher_ros[torch]")

from superglue_checkpoint import nearest_neighbour_tensors  # noqa: E402

pytestmark = [pytest.mark.data, pytest.mark.slow]


def test_every_command_runs_it(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No trained network may be shipped: this one compares the published descriptors, and must find the poses."""

    def run(*arguments: str | Path) -> str:
        code, out, err = feature_matcher(capsys, *arguments)
        assert (code, err) == (0, "")
        return out

    points, weights = shared_data / "weights" / "superpoint_v1_fp16.pth", tmp_path / "nearest.pth"
    torch.save(nearest_neighbour_tensors(width=256), weights)
    terms = "for research only"
    out = run("export", points, weights, "-o", tmp_path, "--licence", terms)
    assert "superglue, 3 graphs" in out and out.count(f"licence of the weights: {terms}") == 2
    values = {
        "extractor.name": "superpoint",
        "extractor.graphs": tmp_path / points.stem,
        "extractor.max_keypoints": 512,
        "matcher.name": "superglue",
        "matcher.graphs": tmp_path / weights.stem,
    }
    settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]

    sequence = shared_data / "sequences" / "tum_fr3_office"
    images = sorted(sequence.rglob("*.png")) + sorted(sequence.rglob("*.jpg"))
    out = run("match", *images[:2], "-o", tmp_path / "matches.png", *settings)
    assert out.count(terms) == 2  # at the first use of either network
    assert (tmp_path / "matches.png").stat().st_size > 10_000

    run("replay", sequence, "-o", tmp_path / "run", "--duration", "4", *settings)
    rows = [row for row in read_pair_table(tmp_path / "run" / "pairs.csv") if row.num_matches is not None]
    assert len(rows) >= 2
    assert all(row.layers_run == 1 and row.num_inliers and row.num_inliers > 50 for row in rows)

    table = run("evaluate", shared_data / "pairs" / "euroc_stereo.json", *settings)
    accuracy = re.search(r"pose AUC@10°\W+([\d.]+)", table)
    assert accuracy is not None and float(accuracy[1]) > 60.0
    assert re.search(r"layers run, mean\W+1\.00", table)
