"""Thresholds of a network without detector: what is recorded of it is what it does, and calibrate stops it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from command_line import feature_matcher
from image_pairs_scene import SIZE, K, render

torch = pytest.importorskip("torch", reason="exporting networks needs torch: pip install feature_matcher_ros[torch]")

from tiny_dense_networks import TINY, exported  # noqa: E402

from feature_matcher_ros.config import load_config  # noqa: E402
from feature_matcher_ros.datatypes import StopReason  # noqa: E402
from feature_matcher_ros.errors import MatcherError  # noqa: E402
from feature_matcher_ros.evaluation.adaptive_matchers import answer, record, with_stops  # noqa: E402
from feature_matcher_ros.evaluation.threshold_choice import SCALE, largest_stop_step  # noqa: E402
from feature_matcher_ros.evaluation.threshold_records import agreement  # noqa: E402
from feature_matcher_ros.export.dense_to_onnx import export_dense  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin  # noqa: E402
from feature_matcher_ros.geometry import pose_from, rotation_from_vector  # noqa: E402
from feature_matcher_ros.matchers import create_matcher  # noqa: E402
from feature_matcher_ros.matchers.dense_graphs import open_dense  # noqa: E402
from feature_matcher_ros.matchers.detector_free import DenseRules, DetectorFree  # noqa: E402
from feature_matcher_ros.models.dense_config import DenseTuning  # noqa: E402
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr  # noqa: E402

RULES = DenseRules(min_score=0.0)


def view(number: int) -> np.ndarray:
    turn = rotation_from_vector(np.array([0.0, 0.004, 0.002]) * number)
    return render(pose_from(turn, np.array([0.02, 0.004, 0.01]) * number))


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose second round changes the matches."""
    torch.manual_seed(3)
    network = EfficientLoftr(TINY).eval().requires_grad_(False)
    for number, layer in enumerate(network.loftr_coarse.layers):
        layer.norm2.weight.fill_(20.0 if number == 0 else 0.7)
    folder = tmp_path_factory.mktemp("changing")
    export_dense(network.merge(), Origin("changing", "Apache-2.0", "this test"), folder)
    return folder


def test_what_is_recorded_is_what_the_matcher_does(changing: Path) -> None:
    matcher = DetectorFree(open_dense(changing, num_threads=1), RULES)
    features = [matcher.extract(view(number)) for number in (0, 6)]
    pair, matches = record(matcher, *features)
    full = with_stops(matcher).match(*features)
    np.testing.assert_array_equal(matches.points1, full.points1)
    assert len(pair.matches) >= len(full) > 50
    first, last = pair.stages
    assert first.agreement < 0.9 and last.agreement == 1.0
    assert len(first.confidence) == 2 * (SIZE[0] // 8) * (SIZE[1] // 8)
    again = [record(matcher, *features)[0] for _ in range(5)]
    first_ms, last_ms = (
        min(other.stages[number].match_ms - other.following_ms for other in again) for number in (0, 1)
    )
    assert 0.0 < first_ms < last_ms and all(other.following_ms > 0.0 for other in again)
    for step, rounds in ((stop := largest_stop_step(first.confidence, 0.95), 1), (stop + 1, 2)):
        found = answer(with_stops(matcher, 0.95, (step / SCALE, 1.0)), pair.features0, pair.features1)
        assert (found.layers_run, found.kept_share) == (rounds, 1.0)
        assert agreement(found.indices, pair.matches) == (first.agreement if rounds == 1 else 1.0)


def test_thresholds_stay_with_the_graphs_and_must_fit(tmp_path: Path) -> None:
    network = EfficientLoftr(TINY).eval().requires_grad_(False).merge()
    export_dense(network, Origin("own", "Apache-2.0", "this test"), tmp_path, DenseTuning((0.001, 1.0), 320))
    graphs = open_dense(tmp_path, num_threads=1)
    assert graphs.tuning == DenseTuning((0.001, 1.0), 320)
    assert DetectorFree(graphs).extract(np.zeros((512, 640), np.uint8)).content_size == (320, 256)
    image = view(0)
    for rules, rounds in ((RULES, 1), (replace(RULES, thresholds=(1.0, 1.0)), 2)):
        matcher = DetectorFree(graphs, rules)
        matches = matcher.match(matcher.extract(image), matcher.extract(image))
        assert matches.layers_run == rounds
        assert (matches.stop_reason is StopReason.CONFIDENT) == (rounds == 1)
    with pytest.raises(MatcherError, match="3 confidence thresholds do not fit a network of 2 layers"):
        export_dense(network, Origin("own", "Apache-2.0", "this test"), tmp_path, DenseTuning((0.9, 0.9, 0.9)))


def test_rounds_that_change_nothing_are_not_run(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command line, on a slow walk; what it writes is what the matcher takes."""
    walk, output = tmp_path / "walk", tmp_path / "calibration.yaml"
    walk.mkdir()
    for number in range(24):
        cv2.imwrite(str(walk / f"{number}.png"), view(number))
    camera = {"width": SIZE[0], "height": SIZE[1], "K": K.ravel().tolist()}
    (walk / "calibration.yaml").write_text(yaml.safe_dump(camera))
    values = {
        "matcher.name": "efficient_loftr",
        "matcher.graphs": exported("efficient_loftr", tmp_path_factory.getbasetemp()),
        "matcher.num_threads": 1,
        "matcher.min_score": 0.0,
        "keyframes.match_every_frame": "true",
    }
    options = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    code, out, err = feature_matcher(capsys, "calibrate", walk, "-o", output, *options)
    assert (code, err) == (0, "")
    assert re.search(r"(2\d) of \1 pairs: 1\d chose", out)
    config = load_config(output)
    assert config.matcher.name == "efficient_loftr" and config.matcher.confidence_thresholds[0] < 0.9
    assert "images of at most 640 px" in output.read_text() and "width_confidence" not in output.read_text()
    row = next(line for line in out.splitlines() if "layers run of 2, mean" in line)
    all_layers, _, calibrated = (float(cell) for cell in row.split("│")[2:5])
    assert all_layers == 2.0 and calibrated < 1.5
    assert create_matcher(config).name == "efficient_loftr"
