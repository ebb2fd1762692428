"""Parameters: what a file or ``--set`` may say, and what is said back when it is wrong."""

from array import array
from pathlib import Path

import pytest
import yaml

from feature_matcher_ros.config import (
    FrontEndConfig,
    iterate_parameters,
    load_config,
    override,
    to_yaml,
)
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.node_config import LiveConfig
from feature_matcher_ros.parameter_values import Value
from feature_matcher_ros.parameters import describe


def _load(folder: Path, text: str) -> FrontEndConfig:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def _other_value(value: Value) -> Value:
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 0.5, 1e-5, *[1.0] * 30)  # more than fits a line of 80, and a number without a point
    return value if isinstance(value, str) else value * 1.25 if isinstance(value, float) else value + 1


def _all_changed() -> FrontEndConfig:
    """A configuration in which no number and no switch has its default, and all are in range."""
    values = {entry.path: _other_value(entry.default) for entry in iterate_parameters()}
    values |= {"pose.success_probability": 0.75, "extractor.name": "orb", "matcher.max_ratio": 1.0}
    values |= {"extractor.graphs": "graphs/orb", "matcher.name": "lightglue", "matcher.graphs": "graphs/lightglue"}
    values |= {"matcher.depth_confidence": 0.5, "matcher.width_confidence": 1.0, "matcher.match_budget_ms": 20.0}
    values |= {"extractor.runtime": "onnx", "matcher.runtime": "tensorrt", "matcher.coarse": "optimized"}
    return override(FrontEndConfig(), values)


def test_the_file_that_ships_holds_the_defaults() -> None:
    path = Path(__file__).parents[1] / "config" / "front_end.yaml"
    assert path.read_text(encoding="utf-8") == to_yaml(LiveConfig()), "run `make config`"
    assert load_config(path) == FrontEndConfig()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = _all_changed()
    assert all(
        changed.default != default.default
        for changed, default in zip(iterate_parameters(config), iterate_parameters(), strict=True)
    )
    assert _load(tmp_path, to_yaml(config)) == config


def test_a_long_path_with_blanks_is_written_whole(tmp_path: Path) -> None:
    config = override(FrontEndConfig(), {"matcher.graphs": f"/home/somebody/{'a folder with a long name/' * 8}graphs"})
    assert _load(tmp_path, to_yaml(config)) == config


def test_plain_and_ros_form_mean_the_same(tmp_path: Path) -> None:
    content = yaml.safe_load(to_yaml(_all_changed()))
    plain = content["/**"]["ros__parameters"]
    assert _load(tmp_path, yaml.safe_dump(plain)) == _all_changed()


def test_what_is_left_out_keeps_its_default(tmp_path: Path) -> None:
    assert _load(tmp_path, "") == FrontEndConfig()
    assert _load(tmp_path, "pose:\n") == FrontEndConfig()
    assert _load(tmp_path, "/**: {ros__parameters: }") == FrontEndConfig()
    assert _load(tmp_path, "pose: {seed: 7}") == override(FrontEndConfig(), {"pose.seed": 7})


@pytest.mark.parametrize("node", ["/**", "/*", "feature_matcher", "/feature_matcher", "/robot/feature_matcher"])
def test_a_robots_file_is_read_for_this_node_alone(tmp_path: Path, node: str) -> None:
    config = _load(
        tmp_path,
        f"""
        {node}: {{ros__parameters: {{use_sim_time: true, pose: {{seed: 7}}, tracks.merge_radius_px: 3.0}}}}
        /camera: {{ros__parameters: {{exposure: 10}}}}
        """,
    )
    assert config == override(FrontEndConfig(), {"pose.seed": 7, "tracks.merge_radius_px": 3.0})


def test_numbers_may_be_written_in_several_ways() -> None:
    values = {
        "pose.max_epipolar_error_px": "1e0",  # a text to YAML 1.1
        "pose.keypoint_sigma_px": 2,
        "pose.max_iterations": "500",
        "keyframes.match_every_frame": "yes",
        "keyframes.max_interval_ms": ".inf",
    }
    config = override(FrontEndConfig(), values)
    assert config.pose.max_epipolar_error_px == 1.0 and isinstance(config.pose.keypoint_sigma_px, float)
    assert config.pose.max_iterations == 500 and config.keyframes.match_every_frame is True
    assert config.keyframes.max_interval_ms == float("inf")


@pytest.mark.parametrize(
    "value",
    [
        "0.9,1,1e-3",
        " [0.9, 1, 1e-3] ",
        [0.9, 1, 0.001],
        (0.9, 1.0, 0.001),
        array("d", [0.9, 1.0, 0.001]),  # as ROS 2 gives it
    ],
)
def test_a_list_of_numbers_may_be_written_in_several_ways(tmp_path: Path, value: object) -> None:
    config = override(FrontEndConfig(), {"matcher.confidence_thresholds": value})
    assert config.matcher.confidence_thresholds == (0.9, 1.0, 0.001)
    assert _load(tmp_path, "matcher: {confidence_thresholds: [0.9, 1, 0.001]}") == config
    for nothing in ("", "[]", [], (), None, "null"):
        assert override(config, {"matcher.confidence_thresholds": nothing}) == FrontEndConfig()


def test_no_empty_list_stands_in_a_file() -> None:
    """A ROS 2 node breaks off at one: it cannot know what it is a list of."""
    assert "confidence_thresholds" not in yaml.safe_load(to_yaml(FrontEndConfig()))["/**"]["ros__parameters"]["matcher"]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("matcher.confidence_thresholds", "0.9,high", r"'0.9,high' is not of type list of numbers"),
        ("matcher.confidence_thresholds", "0.9,,0.8", r"'0.9,,0.8' is not of type list of numbers"),
        ("matcher.confidence_thresholds", [0.9, True], r"\[0.9, True\] is not of type list of numbers"),
        ("matcher.confidence_thresholds", 0.9, r"0.9 is not of type list of numbers"),
        ("matcher.confidence_thresholds", "0.9,1.5", r"0.9,1.5 is out of range: give a value of 0 to 1"),
        ("matcher.confidence_thresholds", [float("nan")], r"is out of range: give a value of 0 to 1"),
        ("pose.max_epipolar_error", 1.0, r"unknown parameter 'pose.max_epipolar_error'.*'pose.max_epipolar_error_px'"),
        ("survival", 0.5, r"unknown parameter 'survival'"),
        ("pose.seed.more", 1, r"unknown parameter 'pose.seed.more'.*'pose.seed'"),
        ("extractor.name", "sfit", r"extractor.name = 'sfit' is not one of sift, orb, xfeat"),
        ("extractor.max_keypoints", 0, r"extractor.max_keypoints = 0 is out of range: give a value of 1 to 65536"),
        ("extractor.max_keypoints", 512.5, r"extractor.max_keypoints = 512.5 is not of type int"),
        ("extractor.max_keypoints", True, r"extractor.max_keypoints = True is not of type int"),
        ("extractor.max_keypoints", "[", r"extractor.max_keypoints = '\[' is not of type int"),
        ("extractor.max_keypoints", None, r"extractor.max_keypoints = None is not of type int"),
        ("extractor.grid_cell_px", -1, r"extractor.grid_cell_px = -1 is out of range: give a value of at least 0"),
        ("pose.success_probability", False, r"pose.success_probability = False is not of type float"),
        ("pose.success_probability", "high", r"pose.success_probability = 'high' is not of type float"),
        ("pose.success_probability", float("nan"), r"pose.success_probability = nan is out of range"),
        ("pose.success_probability", 10**400, r"is not of type float"),
        ("keyframes.match_every_frame", 1, r"keyframes.match_every_frame = 1 is not of type bool"),
        ("keyframes.match_every_frame", "1", r"keyframes.match_every_frame = '1' is not of type bool"),
        ("matcher.name", 3, r"matcher.name = 3 is not of type str"),
    ],
)
def test_a_wrong_value_is_named_with_the_remedy(path: str, value: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        override(FrontEndConfig(), {path: value})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pose: [1, 2", "is not valid YAML"),
        ("- pose", "must map sections to parameters"),
        ("7", "must map sections to parameters"),
        ("pose: 3", "unknown parameter 'pose'"),
        ("pose: {sed: 3}", r"config.yaml: unknown parameter 'pose.sed'.*'pose.seed'"),
        ("pose: {seed: {value: 3}}", "pose.seed = {'value': 3} is not of type int"),
        ("{[a]: 3}", "is not valid YAML|unknown parameter"),
        ("/**: {ros__parameters: [1]}", "must map sections to parameters"),
        ("/**: {ros__parameters: {pose: {sed: 3}}}", "unknown parameter 'pose.sed'"),
        ("/camera: {ros__parameters: {exposure: 10}}", "parameters for /camera and none for feature_matcher"),
        ("/**: {ros__parameters: }\npose: {seed: 3}", "'pose' stands beside the nodes"),
    ],
)
def test_a_wrong_file_is_named_with_the_remedy(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as raised:
        _load(tmp_path, text)
    assert str(tmp_path / "config.yaml") in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        load_config(binary)


def test_defaults_pass_their_own_checks_and_units_agree_with_names() -> None:
    for entry in iterate_parameters():
        assert override(FrontEndConfig(), {entry.path: entry.default}) == FrontEndConfig()
        unit = entry.path.rsplit("_", 1)[-1]
        assert entry.info.unit == (unit if unit in ("px", "ms", "deg", "hz", "s") else ""), entry.path
        assert entry.info.help and entry.info.help in describe(entry)
