"""From published weights to poses, as a user goes: export the networks, then replay a recording with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import feature_matcher

from feature_matcher_ros.cli import main
from feature_matcher_ros.evaluation.pair_table import PairRow, read_pair_table
from feature_matcher_ros.evaluation.sequences import open_sequence
from feature_matcher_ros.geometry import rotation_angle_deg

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def graphs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    pytest.importorskip("onnx", reason="the export needs onnx: pip install feature_matcher_ros[torch]")
    folder = tmp_path_factory.mktemp("graphs")
    weights = [str(shared_data / "weights" / name) for name in ("xfeat.pt", "xfeat_lighterglue_L3.pt")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["feature-matcher", "export", *weights, "-o", str(folder)])
        main()
    assert not stop.value.code
    return folder


def settings(graphs: Path, **more: object) -> list[str]:
    values = {
        "extractor.name": "xfeat",
        "extractor.graphs": graphs / "xfeat",
        "extractor.num_threads": 1,
        "matcher.name": "lightglue",
        "matcher.graphs": graphs / "xfeat_lighterglue_L3",
        "matcher.num_threads": 1,
    }
    values |= {f"matcher.{name}": value for name, value in more.items()}
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


def errors_deg(rows: list[PairRow], sequence: Path) -> np.ndarray:
    """Errors (N, 2) of rotation and direction of all poses, by the true poses at the very stamps."""
    truth = open_sequence(sequence).ground_truth
    assert truth is not None
    at = dict(zip(truth.stamps_ns.tolist(), truth.world_from_cam, strict=True))
    found: list[tuple[float, float]] = []
    for row in rows:
        if row.rotation is None or row.direction is None or not {row.stamp_ns, row.keyframe_stamp_ns} <= at.keys():
            continue
        true = np.linalg.inv(at[row.stamp_ns]) @ at[row.keyframe_stamp_ns]
        cosine = row.direction @ true[:3, 3] / np.linalg.norm(true[:3, 3])
        found.append((rotation_angle_deg(row.rotation @ true[:3, :3].T), np.degrees(np.arccos(np.clip(cosine, -1, 1)))))
    return np.array(found)


def test_a_replay_with_networks_finds_the_true_motion(
    graphs: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = shared_data / "sequences" / "kitti_seq1", tmp_path / "run"
    code, _, err = feature_matcher(
        capsys, "replay", sequence, "-o", run, "--no-topics", "--stride", "3", *settings(graphs)
    )
    assert (code, err) == (0, "")
    rows = read_pair_table(run / "pairs.csv")
    assert len(rows) == 17
    matched = [row for row in rows if row.num_matches is not None]
    assert len(matched) == 16
    assert {row.layers_run for row in matched} == {3}  # these weights can be left after the last layer alone
    errors = errors_deg(rows, sequence)
    assert len(errors) >= 15
    assert np.median(errors, axis=0) == pytest.approx([0, 0], abs=1.0)
    assert (errors < [1.0, 5.0]).all()
    assert json.loads((run / "run.json").read_text())["matcher"] == "lightglue"
    assert "layers run" in (run / "report.html").read_text(encoding="utf-8").lower()


def test_what_does_not_fit_is_one_sentence_before_any_frame(
    graphs: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = shared_data / "sequences" / "kitti_seq1", tmp_path / "run"
    changes = {
        "matcher.graphs=": "give matcher.graphs the folder",
        "matcher.graphs=/nowhere": "folder written by feature-matcher export",
        f"matcher.graphs={graphs / 'xfeat'}": "holds the graphs of 'xfeat', not of lightglue",
        "extractor.graphs=": "needs extractor.graphs",
        f"extractor.graphs={graphs / 'xfeat_lighterglue_L3'}": "not of a network that detects points",
        "extractor.name=aliked": "holds the graphs of xfeat, not of aliked",
        "extractor.name=sift": "choose the extractor it was trained for",
    }
    for change, sentence in changes.items():
        code, _, err = feature_matcher(capsys, "replay", sequence, "-o", run, *settings(graphs), "--set", change)
        assert code == 1
        assert sentence in err and err.startswith("feature-matcher: ") and err.count("\n") == 1
    assert not run.exists()


def test_the_manifest_names_the_licence(graphs: Path) -> None:
    manifest = json.loads((graphs / "xfeat" / "manifest.json").read_text())
    assert manifest["licence"].startswith("unknown") or manifest["licence"] == "Apache-2.0"
    assert manifest["weights"] and manifest["source"]
