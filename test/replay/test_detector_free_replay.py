"""From weights to matches without detected points, as a user goes: export, match, replay, evaluate."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from feature_matcher_ros.cli import main
from feature_matcher_ros.evaluation.pair_table import read_pair_table

pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip("onnx", reason="the export needs onnx: pip install feature_matcher_ros[torch]")

pytestmark = [pytest.mark.data, pytest.mark.slow]


def feature_matcher(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run the command line in this process, without an error; what it prints."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["feature-matcher", *map(str, arguments)])
        main()
    out, err = capsys.readouterr()
    assert (int(stop.value.code or 0), err) == (0, "")
    return out


def test_every_command_runs_it(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The weights are seeded and mean nothing: that matches come out and are written down is what is tested."""
    weights = shared_data / "reference" / "eloftr_seeded" / "eloftr_seed0_fp16.pth"
    out = feature_matcher(capsys, "export", weights, "-o", tmp_path / "graphs", "--licence", "CC0-1.0")
    assert "efficient_loftr, 8 graphs" in out
    values = {
        "matcher.name": "efficient_loftr",
        "matcher.graphs": tmp_path / "graphs" / weights.stem,
        "matcher.num_threads": 1,
        "matcher.min_score": 0.0,
        "matcher.max_image_px": 320,
    }
    settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]

    sequence = shared_data / "sequences" / "tum_fr3_office"
    images = sorted(sequence.rglob("*.png")) + sorted(sequence.rglob("*.jpg"))
    feature_matcher(capsys, "match", *images[:2], "-o", tmp_path / "matches.png", *settings)
    assert (tmp_path / "matches.png").stat().st_size > 10_000

    feature_matcher(capsys, "replay", sequence, "-o", tmp_path / "run", "--duration", "4", *settings)
    rows = [row for row in read_pair_table(tmp_path / "run" / "pairs.csv") if row.num_matches is not None]
    assert len(rows) >= 2
    assert all(row.num_matches and row.num_matches > 10 for row in rows)

    table = feature_matcher(capsys, "evaluate", shared_data / "pairs" / "euroc_stereo.json", *settings)
    mean = re.search(r"matches, mean\W+(\d+)", table)
    assert mean is not None
    assert int(mean[1]) > 10
