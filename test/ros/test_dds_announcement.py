"""How an endpoint looks to the rest of a ROS 2 graph, seen with cyclonedds alone."""

import os
import time

import pytest

pytest.importorskip("cyclonedds", reason="live topics need cyclonedds")

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription
from cyclonedds.core import Policy
from cyclonedds.domain import DomainParticipant
from live_harness import wait_until
from rosbags.typesys import Stores, get_typestore

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.ros.dds_graph import DdsGraph
from feature_matcher_ros.ros.dds_types import DdsTypes, dds_type_name, ros_type_name
from feature_matcher_ros.ros.graph import LATCHED, SENSOR_DATA, Endpoint, QosProfile
from feature_matcher_ros.ros.names import NodeName, RemappingRule

STRING = "std_msgs/msg/String"
# As ROS 2 prints it with `ros2 topic info --verbose`.
STRING_HASH = b"typehash=RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18;"


def test_endpoints_bear_the_names_types_hashes_and_policies_of_ros() -> None:
    node = NodeName("eye", "/robot", (RemappingRule("~/said", "/elsewhere"),))
    with DdsGraph(node) as graph:
        graph.advertise("~/said", STRING, QosProfile(is_reliable=True, depth=7))
        graph.advertise("/fixed", STRING, LATCHED)
        graph.subscribe("heard", STRING, SENSOR_DATA, lambda _: None, lambda _: None)
        observer = DomainParticipant(int(os.environ["ROS_DOMAIN_ID"]))
        readers = [
            BuiltinDataReader(observer, topic) for topic in (BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription)
        ]
        seen = {}

        def all_seen() -> bool:
            for reader in readers:
                seen.update({sample.topic_name: sample for sample in reader.read(100)})
            return {"rt/elsewhere", "rt/fixed", "rt/robot/heard", "ros_discovery_info"} <= seen.keys()

        wait_until(all_seen, "the endpoints")
        for name in ("rt/elsewhere", "rt/fixed", "rt/robot/heard"):
            assert seen[name].type_name == "std_msgs::msg::dds_::String_"
            assert seen[name].qos[Policy.Userdata].data == STRING_HASH
            assert seen[name].qos[Policy.DataRepresentation].use_cdrv0_representation
        assert seen["rt/elsewhere"].qos[Policy.History] == Policy.History.KeepLast(7)
        assert seen["rt/elsewhere"].qos[Policy.Durability] == Policy.Durability.Volatile
        assert seen["rt/fixed"].qos[Policy.Durability] == Policy.Durability.TransientLocal
        assert seen["rt/robot/heard"].qos[Policy.Reliability] == Policy.Reliability.BestEffort
        observer._delete(observer._ref)


def test_a_node_is_known_by_its_name_and_its_endpoints() -> None:
    heard = []
    with DdsGraph(NodeName("watcher")) as graph:
        entities = QosProfile(is_reliable=True, depth=1, is_latched=True)
        kind = "rmw_dds_common/msg/ParticipantEntitiesInfo"
        subscription = _subscribe_raw(graph, "ros_discovery_info", kind, entities, heard.append)
        with DdsGraph(NodeName("eye", "/robot")) as other:
            publisher = other.advertise("/said", STRING, SENSOR_DATA)
            wait_until(lambda: any(_names_writer(message, publisher) for message in heard), "the node's announcement")
            wait_until(lambda: bool(graph.publishers()), "its publisher")
            assert graph.publishers() == [Endpoint("/said", STRING, QosProfile(is_reliable=False, depth=5))]
            assert other.publishers() == []
        wait_until(lambda: not graph.publishers(), "the end of its publisher")
        subscription.close()


def test_types_go_there_and_back() -> None:
    store = get_typestore(Stores.ROS2_JAZZY)
    types = DdsTypes(store)
    for name in ("sensor_msgs/msg/Image", "nav_msgs/msg/Odometry", "visualization_msgs/msg/MarkerArray"):
        assert ros_type_name(dds_type_name(name)) == name
        assert types.description(name) is types.description(name)
    assert ros_type_name("some::Other") is None


@pytest.mark.parametrize("domain", ["-1", "x", "233"])
def test_a_wrong_domain_is_named(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", domain)
        with pytest.raises(ConfigError, match=f"ROS_DOMAIN_ID = '{domain}' is no domain"):
            DdsGraph(NodeName())


def test_a_subscriber_that_comes_late_hears_what_is_latched() -> None:
    heard = []
    with DdsGraph(NodeName("speaker")) as speaker, DdsGraph(NodeName("listener")) as listener:
        publisher = speaker.advertise("/latched", STRING, LATCHED)
        publisher.publish(speaker.make(STRING, data="early"))
        time.sleep(0.1)
        listener.subscribe("/latched", STRING, LATCHED, lambda message: heard.append(message.data), lambda _: None)
        wait_until(lambda: heard == ["early"], "the latched message")


def _subscribe_raw(graph: DdsGraph, topic: str, kind: str, qos: QosProfile, on_message: object) -> object:
    """Listen to one of the graph's own topics, whose names ROS does not change."""
    from feature_matcher_ros.ros.dds_endpoints import DdsSubscription

    return DdsSubscription(graph._participant, graph.make, graph._types, topic, kind, qos, on_message, lambda _: None)


def _names_writer(message: object, publisher: object) -> bool:
    nodes = [
        node for node in message.node_entities_info_seq if (node.node_namespace, node.node_name) == ("/robot", "eye")
    ]
    gid = publisher.writer.get_guid().bytes
    return any(bytes(writer.data) == gid for node in nodes for writer in node.writer_gid_seq)
