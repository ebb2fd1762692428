"""A node that wants TensorRT builds its engines while it is configured, and says so on ``/diagnostics``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("onnx", reason="engines are built from graphs with onnx: pip install onnx")

from gpu_machine import Machine, gpu_machine

from feature_matcher_ros.config import override
from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.node_config import LiveConfig
from feature_matcher_ros.ros.server import Server
from feature_matcher_ros.runtimes import tensorrt_library

CONFIG = override(
    LiveConfig(),
    {"matcher.name": "lightglue", "matcher.runtime": "tensorrt", "extractor.max_keypoints": 64},
)


class Recorder:
    """A publisher to which somebody listens, and which remembers what the node says."""

    def __init__(self, topic: str, said: list[dict[str, str]]) -> None:
        self.topic, self._said = topic, said

    def has_subscribers(self) -> bool:
        return True

    def publish(self, message: Any) -> bool:
        status = message.status[0]
        self._said.append({"level": status.level, **{value.key: value.value for value in status.values}})
        return True

    def close(self) -> None:
        pass


class QuietGraph:
    """A graph in which this node is alone."""

    node_name = "/feature_matcher"

    def __init__(self) -> None:
        self.said: list[dict[str, str]] = []

    def make(self, type_name: str, **fields: Any) -> Any:
        return SimpleNamespace(**fields)

    def expand(self, topic: str) -> str:
        return topic.replace("~", self.node_name)

    resolve = expand

    def advertise(self, topic: str, type_name: str, qos: Any) -> Recorder:
        return Recorder(topic, self.said)

    def publishers(self) -> Sequence[Any]:
        return ()

    def now_ns(self) -> int:
        return 1_000_000_000


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    with gpu_machine(monkeypatch, tmp_path) as found:
        yield found


def test_configure_builds_what_is_missing_and_says_so(machine: Machine) -> None:
    graph = QuietGraph()
    server = Server(graph, CONFIG)
    server.configure()
    server.cleanup()
    steps = [said["step"] for said in graph.said]
    building = [number for number, step in enumerate(steps) if step.startswith("builds the engine of ")]
    opening = [number for number, step in enumerate(steps) if step.startswith("opens ")]
    assert building and opening and max(building) < min(opening)
    assert graph.said[-1]["state"] == "CONFIGURED"
    assert graph.said[-1]["runtime"] == "tensorrt" and graph.said[-1]["precision"].startswith("float")
    assert len(list(machine.cache.folder.rglob("*.engine"))) == 13 and len(machine.opened) == 13
    num_compiled = machine.gpu.num_compiled
    again = QuietGraph()
    server = Server(again, CONFIG)
    server.configure()
    server.cleanup()
    assert not any("builds" in said["step"] for said in again.said)
    assert machine.gpu.num_compiled == num_compiled > 0, "nor is a kernel compiled again"


def test_a_configure_that_cannot_build_fails_with_the_reason(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_library, "driver_problem", lambda: "there is no NVIDIA driver on this machine")
    graph = QuietGraph()
    server = Server(graph, CONFIG)
    with pytest.raises(RuntimeLoadError, match=r"no NVIDIA driver .*or set the runtime to onnx"):
        server.configure()
    server.cleanup()
    assert (graph.said[-1]["state"], graph.said[-1]["level"]) == ("FAILED", 2)
    assert "no NVIDIA driver" in graph.said[-1]["step"]


def test_without_onnx_a_missing_engine_is_refused_with_the_command(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "feature_matcher_ros.export.missing_engines", None)
    server = Server(QuietGraph(), CONFIG)
    with pytest.raises(RuntimeLoadError, match=r"there is no engine for tensorrt_rtx .* run feature-matcher build "):
        server.configure()
    server.cleanup()
