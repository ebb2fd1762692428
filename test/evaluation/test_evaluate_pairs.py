"""Image pairs of an invented scene: true poses are recognised as right, false ones as wrong."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from command_line import feature_matcher
from image_pairs_scene import SIZE, write_pairs

from feature_matcher_ros.config import FrontEndConfig, MatcherConfig
from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.errors import ConfigError, OutputError, SourceError
from feature_matcher_ros.evaluation.evaluate_pairs import PairSetEvaluation, evaluate_pairs, pair_set_table
from feature_matcher_ros.evaluation.json_text import to_json
from feature_matcher_ros.evaluation.layers_plot import common_share, plot_layers
from feature_matcher_ros.geometry import pose_from, rotation_from_vector

NEAREST = FrontEndConfig(matcher=MatcherConfig(name="mutual_nearest"))


@pytest.fixture(scope="module")
def motions() -> list[Float]:
    return [
        pose_from(rotation_from_vector([0.0, 0.02, 0.01]), [0.4, 0.05, 0.0]),
        pose_from(rotation_from_vector([0.02, -0.03, 0.0]), [-0.3, 0.2, 0.1]),
        pose_from(rotation_from_vector([0.01, 0.0, -0.03]), [0.1, -0.4, 0.05]),
    ]


@pytest.fixture(scope="module")
def evaluation(motions, tmp_path_factory) -> PairSetEvaluation:
    seen = []
    path = write_pairs(tmp_path_factory.mktemp("pairs"), motions, motions)
    evaluation = evaluate_pairs(path, NEAREST, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    return evaluation


def test_true_poses_are_found_by_both_estimators_on_the_same_matches(evaluation):
    assert set(evaluation.estimators) == {"poselib", "opencv"}
    for scores in evaluation.estimators.values():
        assert (scores.num_poses, scores.num_wrong) == (3, 0)
        assert scores.auc[20.0] > 0.8 and scores.auc[5.0] <= scores.auc[10.0] <= scores.auc[20.0]
        assert scores.mean_num_inliers <= evaluation.mean_num_matches
    assert evaluation.estimators["poselib"].auc[5.0] > 0.7
    assert evaluation.precision[5e-4] > 0.9
    assert all(pair.num_matches > 50 for pair in evaluation.pairs)


def test_numbers_are_printed_and_written(evaluation):
    header, rows = pair_set_table(evaluation)
    assert header == ["", "poselib", "opencv"] and all(len(row) == 3 for row in rows)
    cells = {row[0]: row[1] for row in rows}
    assert cells["pairs with a pose"] == "3 of 3"
    assert evaluation.p99_match_ms >= evaluation.median_match_ms and cells["match, 99 %"].endswith(" ms")
    assert evaluation.mean_layers_run is None and "layers run, mean" not in cells  # this matcher has none
    numbers = json.loads(to_json(evaluation))
    assert numbers["estimators"]["poselib"]["auc"]["5.0"] == evaluation.estimators["poselib"].auc[5.0]


def test_false_truth_is_an_error_of_180_degrees_and_costs_precision(motions, tmp_path):
    opposite = pose_from(motions[0][:3, :3], -motions[0][:3, 3])
    across = pose_from(motions[1][:3, :3], [0.0, 0.1, 0.5])
    path = write_pairs(tmp_path, motions[:2], [opposite, across])
    evaluation = evaluate_pairs(path, NEAREST, estimators=["poselib"])
    first, second = (pair.estimators["poselib"] for pair in evaluation.pairs)
    assert first.rotation_deg < 1.0 and first.direction_deg > 170.0
    assert second.direction_deg > 30.0
    assert evaluation.estimators["poselib"].auc == {5.0: 0.0, 10.0: 0.0, 20.0: 0.0}
    assert evaluation.estimators["poselib"].num_wrong == 2
    # The epipolar lines do not know the sign of a direction, but they know the direction.
    assert evaluation.pairs[0].precision[5e-4] > 0.9 > evaluation.pairs[1].precision[1e-4]


def test_images_without_points_fail_without_a_pose(tmp_path):
    path = write_pairs(tmp_path, [np.eye(4)], [pose_from(np.eye(3), [1.0, 0.0, 0.0])])
    for name in ("0.png", "1.png"):
        cv2.imwrite(str(tmp_path / name), np.full(SIZE[::-1], 128, np.uint8))
    evaluation = evaluate_pairs(path, NEAREST)
    assert evaluation.mean_num_matches == 0.0 and evaluation.pairs[0].precision is None
    for scores in evaluation.estimators.values():
        assert (scores.num_poses, scores.median_error_deg, scores.auc[20.0]) == (0, None, 0.0)
    json.loads(to_json(evaluation), parse_constant=pytest.fail)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        evaluate_pairs(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="'magsac' is no pose estimator: choose from poselib, opencv"):
        evaluate_pairs(tmp_path / "absent.json", estimators=["magsac"])


def test_layers_are_drawn_by_what_images_have_in_common(motions, evaluation, tmp_path, capsys):
    path, picture = write_pairs(tmp_path, motions, motions), tmp_path / "new" / "layers.png"
    code, out, err = feature_matcher(
        capsys, "evaluate", path, path, "--plot", picture, "--set", "extractor.max_keypoints=300"
    )
    assert (code, err) == (0, "") and out.count("layers run, mean") == 2
    assert cv2.imread(str(picture)).shape[1] == 960
    for outcome in evaluation.pairs:
        correct = outcome.num_matches * outcome.precision[1e-4]
        assert 50 < outcome.num_points <= 1024 and common_share(outcome) == correct / outcome.num_points < 1.0
    with pytest.raises(ConfigError, match="mutual_nearest on these pairs has no layers to draw: choose a matcher with"):
        plot_layers([evaluation], picture)
    learned = evaluate_pairs(path, estimators=["poselib"])
    with pytest.raises(OutputError, match=r"layers\.none"):
        plot_layers([learned], tmp_path / "layers.none")
