"""Names of topics and the arguments of nodes, as ROS 2 documents them."""

from pathlib import Path

import pytest

from feature_matcher_ros.config import load_config
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.node_config import LiveConfig, NodeConfig, live_config, load_live_config
from feature_matcher_ros.ros.input_topics import below, camera_namespaces, input_topics
from feature_matcher_ros.ros.names import NodeName, RemappingRule, similar_topics
from feature_matcher_ros.ros.node_options import node_options
from feature_matcher_ros.ros.ros_arguments import parse_ros_arguments


@pytest.mark.parametrize(
    ("topic", "full"),
    [
        ("image", "/robot/image"),
        ("left/image", "/robot/left/image"),
        ("/image", "/image"),
        ("~/odometry", "/robot/eye/odometry"),
        ("seen", "/elsewhere/seen"),
        ("/robot/seen", "/elsewhere/seen"),  # both sides of a rule are expanded before they are compared
        ("~/path", "/robot/way"),
        ("mine", "/robot/eye/mine"),
        ("other", "/robot/other"),  # a rule for another node
    ],
)
def test_topics_are_expanded_and_remapped(topic: str, full: str) -> None:
    rules = (
        RemappingRule("seen", "/elsewhere/seen"),
        RemappingRule("seen", "/too/late"),
        RemappingRule("~/path", "way"),
        RemappingRule("mine", "~/mine", node="eye"),
        RemappingRule("other", "/wrong", node="ear"),
    )
    assert NodeName("eye", "/robot", rules).resolve(topic) == full


@pytest.mark.parametrize("topic", ["", "1st", "a//b", "a/", "a b", "~", "/", "a-b"])
def test_what_is_no_name_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a topic"):
        NodeName().resolve(topic)


def test_all_ros_arguments_are_understood() -> None:
    line = (
        "--ros-args -r image:=/camera/image_raw --remap __ns:=/robot -r __node:=eye -p node.qos:=auto "
        "--param pose.seed:=7 -p eye:pose.min_matches:=30 -p ear:pose.min_matches:=99 -p publish:={tf:\u00a0true} "
        "--params-file a.yaml --params-file b.yaml --log-level debug -e /x --disable-rosout-logs --"
    )
    parsed = parse_ros_arguments([argument.replace("\u00a0", " ") for argument in line.split(" ")])
    assert parsed.node.full_name == "/robot/eye"
    assert parsed.node.resolve("image") == "/camera/image_raw"
    expected = [("node.qos", "auto"), ("pose.seed", 7), ("pose.min_matches", 30), ("publish", {"tf": True})]
    assert list(parsed.values) == expected
    assert parsed.files == (Path("a.yaml"), Path("b.yaml"))
    assert parsed.log_level == "DEBUG"
    named = parse_ros_arguments(["--ros-args", "-r", "feature_matcher:__node:=a", "-r", "other:__node:=b"])
    assert named.node.full_name == "/a"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["image:=/x"], "stand behind --ros-args"),
        (["--ros-args", "-r"], "-r has no value"),
        (["--ros-args", "-r", "a=b"], "has not the form FROM:=TO"),
        (["--ros-args", "-p", "a"], "has not the form NAME:=VALUE"),
        (["--ros-args", "-p", "a:=["], "is not YAML"),
        (["--ros-args", "--unknown"], "'--unknown' is not known"),
        (["--ros-args", "--log-level", "loud"], "'loud' is not one of debug"),
        (["--ros-args", "-r", "__ns:=robot"], "cannot be a node"),
        (["--ros-args", "-r", "__node:=/eye"], "cannot be a node"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_ros_arguments(arguments)


def test_camera_info_lies_beside_the_remapped_image() -> None:
    node = NodeName(rules=(RemappingRule("image", "/cam/left/image_rect"), RemappingRule("depth/image", "/cam/depth")))
    topics = input_topics(NodeConfig(modality="rgbd", image_transport="compressed"), "", node)
    assert [(topic.topic, topic.type_name.rpartition("/")[2]) for topic in topics] == [
        ("/cam/left/camera_info", "CameraInfo"),
        ("/cam/camera_info", "CameraInfo"),
        ("/cam/left/image_rect/compressed", "CompressedImage"),
        ("/cam/depth", "Image"),
    ]
    calibrated = input_topics(NodeConfig(calibration="rig.yaml"), "front", NodeName())
    assert [topic.topic for topic in calibrated] == ["/front/image"]
    assert below("front", "~/path") == "~/front/path"


def test_camera_info_has_a_name_of_its_own_where_a_rule_concerns_it() -> None:
    rules = (RemappingRule("image", "/cam/image"), RemappingRule("camera_info", "/calibrated/camera_info"))
    topics = input_topics(NodeConfig(), "", NodeName("eye", "/robot", rules))
    assert [(topic.name, topic.topic) for topic in topics] == [
        ("/robot/camera_info", "/calibrated/camera_info"),
        ("image", "/cam/image"),
    ]


def test_namespaces_are_read() -> None:
    assert camera_namespaces("") == [""]
    assert camera_namespaces("front, rear/left") == ["front", "rear/left"]
    for wrong in ("front,,rear", "front,front", "a-b"):
        with pytest.raises(ConfigError, match=r"node\.namespaces"):
            camera_namespaces(wrong)


def test_similar_topics_share_words() -> None:
    candidates = ["/lidar/points", "/camera/left/image_raw", "/camera/right/image_raw"]
    assert similar_topics("/left/image", candidates)[0] == "/camera/left/image_raw"
    assert similar_topics("/nothing", candidates) == sorted(candidates)


# Which parts of a file of parameters are those of a node, by the rules of rcl.
PARTS = (
    "/**: {ros__parameters: {node: {report_folder: all}}}",
    "/*/eye: {ros__parameters: {node: {mask: any robot}}}",
    "/left/eye: {ros__parameters: {node: {report_folder: left}}}",
    "/right/eye: {ros__parameters: {node: {report_folder: right}}}",
    "/a/**: {ros__parameters: {node.calibration: below a}}",
    "/**/b/eye: {ros__parameters: {node.odom_frame_id: of b}}",
    "right: {eye: {ros__parameters: {node: {depth_topic: nested}}}}",
    "eye: {ros__parameters: {node: {image_topic: root}}}",
)
FOUND = {
    "/left/eye": {"report_folder": "left", "mask": "any robot"},
    "/right/eye": {"report_folder": "right", "mask": "any robot", "depth_topic": "nested"},
    "/a/b/eye": {"report_folder": "all", "calibration": "below a", "odom_frame_id": "of b"},
    "/eye": {"report_folder": "all", "image_topic": "root"},
    "/right/eyes": {"report_folder": "all"},
}


@pytest.fixture
def robots(tmp_path: Path) -> Path:
    (tmp_path / "robots.yaml").write_text("\n".join(PARTS))
    return tmp_path / "robots.yaml"


@pytest.mark.parametrize("node_name", FOUND)
def test_of_a_file_for_several_robots_a_node_takes_its_own_part(node_name: str, robots: Path) -> None:
    namespace, _, name = node_name.rpartition("/")
    arguments = ["--ros-args", "-r", f"__ns:={namespace or '/'}", "-r", f"__node:={name}", "--params-file", str(robots)]
    assert node_options(arguments).config.node == NodeConfig(**FOUND[node_name])


@pytest.mark.ros
@pytest.mark.parametrize("node_name", FOUND)
def test_rcl_takes_the_same_part(node_name: str, robots: Path) -> None:
    pytest.importorskip("rclpy", reason="needs a sourced ROS 2 environment")
    from rclpy.context import Context
    from rclpy.node import Node

    context = Context()
    context.init(["--ros-args", "--params-file", str(robots)])
    namespace, _, name = node_name.rpartition("/")
    node = Node(
        name, namespace=namespace, context=context, automatically_declare_parameters_from_overrides=True,
        start_parameter_services=False,
    )  # fmt: skip
    try:
        found = {name: value.value for name, value in node.get_parameters_by_prefix("node").items()}
    finally:
        node.destroy_node()
        context.shutdown()
    assert found == FOUND[node_name]


def test_what_only_ros_has_may_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text("/**: {ros__parameters: {autostart: false, use_sim_time: true, pose: {seed: 7}}}")
    options = node_options([], config=path)
    assert (options.config.pose.seed, options.use_sim_time) == (7, True)
    assert load_config(path).pose.seed == 7


def test_the_nodes_parameters_stand_beside_those_of_the_front_end(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(
        "/**: {ros__parameters: {use_sim_time: true, pose: {seed: 7}}}\n"
        "/robot/eye: {ros__parameters: {node: {qos: auto}}}\n/ear: {ros__parameters: {node: {qos: reliable}}}\n"
    )
    values = load_live_config(path, "/robot/eye")
    assert values.pop("use_sim_time") is True
    config = live_config(values)
    assert (config.pose.seed, config.node.qos) == (7, "auto")
    assert live_config({}) == LiveConfig()
    with pytest.raises(ConfigError, match=r"did you mean 'node\.modality'"):
        live_config({"node.modalty": "mono"})
    with pytest.raises(ConfigError, match=r"node\.mount_rotation_deg = 45 is not 0, 90, 180 or 270"):
        live_config({"node.mount_rotation_deg": 45})
