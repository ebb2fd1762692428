"""The benchmark: it measures what it says, on as many cores as it says."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from feature_matcher_ros.config import load_config
from feature_matcher_ros.errors import MatcherError, OutputError
from feature_matcher_ros.evaluation import benchmark
from feature_matcher_ros.evaluation.benchmark import OUTSIDE, STAGES, Benchmark, Setting, measure
from feature_matcher_ros.evaluation.benchmark_machine import limited_process
from feature_matcher_ros.evaluation.sequences import Modality

SETTING = Setting(1, "orb", 1024, Modality.STEREO, 100)


@pytest.fixture(scope="module")
def recording() -> list[benchmark._Recorded]:
    return benchmark._record(Modality.STEREO)[:5]


def test_the_stages_add_up_to_the_time_that_passes(recording: list[benchmark._Recorded]) -> None:
    start = time.perf_counter()
    row = measure(SETTING, recording)
    passed_ms = 1e3 * (time.perf_counter() - start)
    assert row.num_frames == 2 and row.num_matches == 100 and row.inlier_ratio > 0.5
    assert set(row.stages_ms) == set(STAGES) and min(row.stages_ms.values()) > 0.0
    assert max(row.stages_ms.values()) < row.total_ms < passed_ms
    assert max(row.stages_ms[stage] for stage in OUTSIDE) < row.outside_ms < row.total_ms


def test_too_few_features_are_an_error_and_no_row_of_zeros(recording: list[benchmark._Recorded]) -> None:
    with pytest.raises(MatcherError, match="8 keypoints give poses for 0 frames"):
        measure(replace(SETTING, max_keypoints=8), recording)


def test_a_recorded_frame_decodes_to_the_rendered_one() -> None:
    recorded = benchmark._record(Modality.RGBD)[0]
    decoded, rendered = recorded.decode(), recorded.frame
    assert decoded.depth is not None and rendered.depth is not None
    assert np.abs(decoded.image.astype(int) - rendered.image).mean() < 4.0
    np.testing.assert_array_equal(np.isnan(decoded.depth.depth_m), np.isnan(rendered.depth.depth_m))
    np.testing.assert_allclose(decoded.depth.depth_m, rendered.depth.depth_m, atol=2e-3)


@pytest.mark.parametrize("cores", [1, 2])
def test_a_process_uses_the_cores_it_is_given(cores: int) -> None:
    before = dict(os.environ)
    with limited_process(cores) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == str(cores)
        assert pool.submit(cv2.getNumThreads).result() == cores
    assert dict(os.environ) == before


def test_every_combination_is_measured_once() -> None:
    found = benchmark.settings()
    assert len(set(found)) == len(found) and len(found) % min(2, os.cpu_count() or 1) == 0
    plain = {s for s in found if (s.cores, s.num_matches, s.matcher) == (1, None, "mutual_nearest")}
    assert {(setting.extractor, setting.max_keypoints) for setting in plain} == {
        (extractor, size) for extractor in ("sift", "orb") for size in (512, 1024, 2048)
    }
    assert sum(setting.num_matches is not None for setting in found) == 3 * min(2, os.cpu_count() or 1)


def test_both_presets_with_the_network_that_ships_are_among_them() -> None:
    learned = {replace(setting, cores=1) for setting in benchmark.settings() if setting.matcher == "lightglue"}
    assert {(s.max_keypoints, s.max_image_px) for s in learned if s.extractor == "sift"} >= {(512, None), (1024, None)}
    fast = load_config(Path(__file__).parents[2] / "config" / "fast.yaml").extractor
    assert Setting(1, fast.name, fast.max_keypoints, Modality.MONO, None, "lightglue", fast.max_image_px) in learned


def test_the_network_that_ships_is_measured_too() -> None:
    recording = benchmark._record(Modality.MONO)[:5]
    row = measure(Setting(1, "sift", 128, Modality.MONO, None, "lightglue", 320), recording)
    assert row.num_frames == 2 and row.num_matches > 30 and row.inlier_ratio > 0.5
    assert row.stages_ms["extract"] + row.stages_ms["match"] < row.pair_ms < row.total_ms


def test_the_table_and_the_file_hold_the_numbers(tmp_path: Path) -> None:
    stages = {stage: float(number) for number, stage in enumerate(STAGES)}
    slow = benchmark.BenchmarkRow(SETTING, 10, 100.0, 0.9, stages, 20.0, 12.25, 40.0)
    fast = replace(slow, setting=replace(SETTING, cores=2), total_ms=25.0)
    result = Benchmark("a machine", {"numpy": "2"}, (slow, fast))
    header, rows = benchmark.benchmark_table(result)
    assert [len(row) for row in rows] == [len(header)] * 2
    assert dict(zip(header, rows[1], strict=True))["speed-up"] == "1.60"
    assert dict(zip(header, rows[0], strict=True))["outside"] == "12.2"
    assert dict(zip(header, rows[0], strict=True))["pairs/s"] == "50.0"
    benchmark.write_benchmark(result, tmp_path / "new" / "bench.json")
    content = json.loads((tmp_path / "new" / "bench.json").read_text(encoding="utf-8"))
    assert content["rows"][1]["total_ms"] == 25.0 and content["rows"][0]["setting"]["modality"] == "STEREO"
    with pytest.raises(OutputError, match=r"bench\.json"):
        benchmark.write_benchmark(result, tmp_path / "new" / "bench.json" / "bench.json")
