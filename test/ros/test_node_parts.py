"""What the node does with parameters, reports and topics that it has to find, without a middleware."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from feature_matcher_ros.config import override
from feature_matcher_ros.datatypes import Frame, Status
from feature_matcher_ros.errors import ConfigError, MatcherError, OutputError, SourceError
from feature_matcher_ros.evaluation.bag_topics import COMPRESSED_IMAGE, IMAGE
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers import create_matcher, follow_config
from feature_matcher_ros.node_config import LiveConfig, load_live_config
from feature_matcher_ros.ros.doctor import environment_rows
from feature_matcher_ros.ros.graph import Endpoint
from feature_matcher_ros.ros.launch_parameters import launch_parameters
from feature_matcher_ros.ros.node_report import save_report
from feature_matcher_ros.ros.run_time_parameters import fixed_changes, is_run_time_safe
from feature_matcher_ros.ros.rviz_view import SHOWN, rviz_view
from feature_matcher_ros.ros.topic_search import FoundTopics, search_topics
from feature_matcher_ros.ros.topics import PATH, TF
from feature_matcher_ros.runtimes.engine_cache import EngineCache, default_engine_folder
from feature_matcher_ros.runtimes.engine_manifest import EngineManifest, EngineSource, Environment

FAST = {
    **{"extractor.name": "orb", "extractor.max_keypoints": 400, "matcher.name": "mutual_nearest"},
    "keyframes.match_every_frame": True,
}


SAFE = {
    **{"matcher.match_budget_ms": 20, "matcher.depth_confidence": 0.8, "matcher.max_ratio": 0.7},
    **{"pose.min_inliers": 30, "keyframes.min_parallax_px": 3.0, "keyframes.match_every_frame": True},
}
FIXED = {
    **{"matcher.name": "lightglue", "matcher.num_threads": 1, "extractor.max_keypoints": 100},
    **{"keyframes.max_recovery_keyframes": 1, "tracks.merge_radius_px": 1.0, "node.publish_tf": True},
}


def test_parameters_that_need_another_network_or_subscription_are_told_from_the_others() -> None:
    before = LiveConfig()
    assert fixed_changes(before, override(before, SAFE)) == []
    assert set(fixed_changes(before, override(before, SAFE | FIXED))) == set(FIXED)
    assert {path for path in SAFE | FIXED if is_run_time_safe(path)} == set(SAFE)


def test_parameters_that_cannot_work_are_refused() -> None:
    moving = {"node.base_frame_id": "base_link", "node.publish_tf": True}
    override(LiveConfig(), moving)
    with pytest.raises(ConfigError, match="several cameras, and each would publish another parent of 'base_link'"):
        override(LiveConfig(), moving | {"node.namespaces": "left, right"})
    for name in ("stereo", "depth"):
        with pytest.raises(ConfigError, match="out of range: give a value of 0 to 10000"):
            override(LiveConfig(), {f"node.{name}_max_skew_ms": ".inf"})


def test_what_is_followed_at_run_time_is_what_a_new_front_end_would_do(frames: list[Frame]) -> None:
    """Parameters that change between two frames give the result of those parameters from the beginning."""
    strict = override(LiveConfig(), FAST | {"matcher.max_ratio": 0.7, "pose.max_epipolar_error_px": 0.8})
    expected = FrontEnd(strict)
    expected.process(frames[0])
    matcher = create_matcher(override(LiveConfig(), FAST))
    front_end = FrontEnd(override(LiveConfig(), FAST), matcher)
    first = front_end.process(frames[0])
    follow_config(matcher, strict.matcher)
    front_end.follow(strict)
    one, other = front_end.process(frames[1]), expected.process(frames[1])
    assert first.status is Status.FIRST_FRAME and one.matches is not None and other.matches is not None
    np.testing.assert_array_equal(one.matches.points1, other.matches.points1)
    np.testing.assert_array_equal(one.inliers, other.inliers)
    front_end.follow(override(strict, {"pose.min_inliers": 5000}))
    assert front_end.process(frames[2]).status is Status.TOO_FEW_INLIERS


def test_thresholds_of_another_network_change_nothing() -> None:
    config = override(LiveConfig(), {"matcher.name": "lightglue"})
    matcher = create_matcher(config)
    wrong = override(config, {"matcher.confidence_thresholds": (0.9, 0.9), "matcher.min_score": 0.5})
    before = matcher.rules  # type: ignore[attr-defined]
    with pytest.raises(MatcherError, match="2 confidence thresholds do not fit a network of 6 layers"):
        follow_config(matcher, wrong.matcher)
    assert matcher.rules is before  # type: ignore[attr-defined]


def test_a_report_is_written_and_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    report = {"node": "/eyes", "cameras": {"camera": {"processed": "7"}}, "parameters": {"pose.seed": 0}}
    path = save_report(tmp_path / "new" / "folder", report)
    content = json.loads(path.read_text())
    assert {name: content[name] for name in report} == report
    assert "Python" in content["environment"]
    assert save_report(path.parent, report) != path
    with pytest.raises(OutputError, match=re.escape("set node.report_folder to one that can.")):
        save_report(path / "below_a_file", report)


def test_the_doctor_tells_which_engines_were_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = default_engine_folder()
    assert dict(environment_rows())["engines"] == f"none in {folder}"
    environment = Environment("tensorrt_rtx", "1.7.1", "", ("8.6", "8.9"))
    for graph in ("aa", "bb"):
        source = EngineSource(graph * 32, environment, "float16", ())
        EngineCache().store(EngineManifest("stage", source.key, source, "", 4, 1.0, "", None), b"code")
    (folder / "cc").mkdir()
    (folder / "cc" / "damaged.json").write_text("{")
    engines = "2 of tensorrt_rtx 1.7.1 in float16 for compute capability 8.6, 8.9, 1 that cannot be read"
    assert dict(environment_rows())["engines"] == f"{engines} in {folder}"


def images(*topics: str) -> list[Endpoint]:
    kinds = {name: COMPRESSED_IMAGE if name.endswith(("/compressed", "/compressedDepth")) else IMAGE for name in topics}
    return [Endpoint(name, kind, None) for name, kind in kinds.items()]


@pytest.mark.parametrize(
    ("modality", "topics", "expected"),
    [
        ("mono", ["/usb_cam/image_raw", "/usb_cam/image_raw/compressed"], FoundTopics("/usb_cam/image_raw")),
        ("mono", ["/cam/image/compressed"], FoundTopics("/cam/image", None, True)),
        ("mono", ["/left/image", "/right/image", "/depth/image"], FoundTopics("/left/image")),
        ("mono", ["/cam/image", "/feature_matcher/matches_image"], FoundTopics("/cam/image")),
        ("stereo", ["/cam1/image", "/cam0/image", "/rear/image"], FoundTopics("/cam0/image", "/cam1/image")),
        (
            "rgbd",
            ["/color/image", "/depth/image/compressedDepth"],
            FoundTopics("/color/image", "/depth/image", False, True),
        ),
    ],
)
def test_the_only_camera_is_found(modality: str, topics: list[str], expected: FoundTopics) -> None:
    assert search_topics(images(*topics), modality) == expected


def test_what_the_node_is_told_of_a_camera_that_was_found() -> None:
    found = FoundTopics("/color", "/depth", is_compressed=True)
    assert found.parameters("mono") == {"node.image_topic": "/color", "node.image_transport": "compressed"}
    assert found.parameters("rgbd")["node.depth_topic"] == "/depth"
    assert found.parameters("rgbd")["node.depth_transport"] == "raw"
    assert found.parameters("stereo")["node.right_image_topic"] == "/depth"


@pytest.mark.parametrize(
    ("modality", "topics", "sentence"),
    [
        ("mono", [], "nobody publishes a topic that could be the image: start the camera, or name the topic."),
        (
            "mono",
            ["/b/image", "/a/image"],
            "2 topics could be the image, /a/image, /b/image: name the one",
        ),
        ("stereo", ["/left/image"], "could be the pair of left and right images"),
        ("rgbd", ["/color/image", "/depth/a", "/depth/b"], "2 topics could be the depth, /depth/a, /depth/b"),
    ],
)
def test_what_is_not_clear_is_said(modality: str, topics: list[str], sentence: str) -> None:
    with pytest.raises(SourceError, match=re.escape(sentence)):
        search_topics(images(*topics), modality)


NOT_GIVEN = {
    **dict.fromkeys(("sensor", "transport", "depth_transport", "process_every_frame", "use_sim_time"), "config"),
    **{"autostart": "config", "publish_unscaled": "config", "calibration": "", "image": "auto", "second": "auto"},
}
RIGHT = "node.right_image_topic"


@pytest.mark.parametrize(
    ("given", "in_file", "expected"),
    [
        ({}, {}, {"node.image_topic": "/mono", "node.image_transport": "raw"}),
        ({}, {"node.image_topic": "/mine", "node.modality": "stereo", "use_sim_time": True}, {}),
        ({}, {"node.namespaces": "left, right"}, {}),
        ({"use_sim_time": "false", "autostart": "false"}, {"node.image_topic": "/mine"}, {"use_sim_time": False}),
        ({"image": "/a", "second": "/b"}, {"node.modality": "stereo"}, {"node.image_topic": "/a", RIGHT: "/b"}),
        ({"image": "/a", "second": "/b"}, {}, {"node.image_topic": "/a"}),
        (
            {"image": "/a", "sensor": "mono", "transport": "compressed", "calibration": "c.yaml"},
            {"node.modality": "stereo"},
            {"node.image_topic": "/a", "node.modality": "mono", "node.image_transport": "compressed"},
        ),
    ],
)
def test_a_launch_file_overrides_only_what_it_was_given(
    given: dict[str, str], in_file: dict[str, object], expected: dict[str, object]
) -> None:
    expected |= {"autostart": False} if "autostart" in given else {}
    expected |= {"node.calibration": "c.yaml"} if "calibration" in given else {}
    assert launch_parameters(NOT_GIVEN | given, in_file, lambda sensor: FoundTopics(f"/{sensor}")) == expected


@pytest.mark.parametrize(
    ("name", "values", "frame", "rules"),
    [
        ("/feature_matcher", {}, "odom", {TF.name: "/feature_matcher/tf", "/tf_static": "/feature_matcher/tf_static"}),
        ("/feature_matcher", {"node.publish_tf": True, "node.odom_frame_id": "map"}, "map", {}),
        ("/robot/eyes", {"node.publish_tf": True}, "odom", {PATH.full_name: "/robot/eyes/path"}),
        (
            "/eyes",
            {"node.namespaces": "left, right"},
            "left/odom",
            {PATH.full_name: "/eyes/left/path", TF.name: "/eyes/left/tf"},
        ),
    ],
)
def test_rviz_is_told_what_this_node_publishes(
    name: str, values: dict[str, object], frame: str, rules: dict[str, str]
) -> None:
    """All topics are remapped, or none; /tf is the robot's where the node adds to it."""
    view = rviz_view(name, values)
    told = dict(view.remappings)
    assert view.fixed_frame == frame and rules.items() <= told.items()
    assert len(told) == len(SHOWN) * (name != "/feature_matcher") + 2 * ("node.publish_tf" not in values)


@pytest.mark.parametrize(
    ("values", "is_said"),
    [({}, True), ({"node.publish_unscaled": True}, False), ({"node.modality": "stereo"}, False)],
)
def test_an_empty_view_is_explained(values: dict[str, object], *, is_said: bool) -> None:
    assert ("publish_unscaled:=true" in rviz_view("/feature_matcher", values).note) == is_said


def test_the_file_of_all_parameters_names_no_camera() -> None:
    """It is what a launch file reads when it is given no other, and the only camera there is is looked for."""
    path = Path(__file__).parents[2] / "config" / "front_end.yaml"
    found = launch_parameters(NOT_GIVEN, load_live_config(path), lambda sensor: FoundTopics(f"/{sensor}"))
    assert found["node.image_topic"] == "/mono"
