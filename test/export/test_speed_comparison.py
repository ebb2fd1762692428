from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the comparison needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip("onnx", reason="the comparison needs onnx: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.datatypes import Features  # noqa: E402
from feature_matcher_ros.errors import MatcherError  # noqa: E402
from feature_matcher_ros.export.benchmark import MODES, compare_speed  # noqa: E402
from feature_matcher_ros.models.lightglue import LightGlueModel  # noqa: E402
from feature_matcher_ros.models.lightglue_config import LightGlueConfig  # noqa: E402


def test_every_mode_is_timed_with_both_runtimes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LightGlueModel(LightGlueConfig(8, 16, 2, 3)).eval().requires_grad_(False)
    generator = np.random.default_rng(0)
    pair = tuple(
        Features(
            generator.uniform(0, 400, (size, 2)).astype(np.float32),
            np.ones(size, np.float32),
            generator.standard_normal((size, 8)).astype(np.float32),
            (640, 480),
        )
        for size in (20, 30)
    )
    rows = compare_speed(model, [pair], tmp_path, num_threads=1, repetitions=2)
    assert {(row.runtime, row.mode) for row in rows} == {(r, m) for r in ("torch", "onnx") for m in MODES}
    assert all(row.median_ms > 0 and row.num_points == 25 and 1 <= row.layers_run <= 3 for row in rows)
    assert next(row.speedup for row in rows if (row.runtime, row.mode) == ("torch", "full")) == 1.0
    with pytest.raises(MatcherError, match="no pairs to time"):
        compare_speed(model, [], tmp_path, num_threads=1)
