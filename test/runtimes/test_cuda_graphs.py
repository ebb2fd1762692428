"""When work is captured, which graphs are kept, and what happens where none can be had."""

from __future__ import annotations

import logging
import weakref

import pytest

from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.runtimes.cuda_graphs import CudaGraphs


class Graph:
    """Stands for what was captured for some inputs."""

    def __init__(self, key: object) -> None:
        self.key = key


class Stage:
    """Runs for inputs of some kind, and counts what it does."""

    def __init__(self) -> None:
        self.graphs: CudaGraphs[Graph] = CudaGraphs("stage3")
        self.captured: list[weakref.ref[Graph]] = []
        self.has_memory = True

    @property
    def num_captured(self) -> int:
        return len(self.captured)

    @property
    def kept(self) -> set[object]:
        return {graph.key for graph in (found() for found in self.captured) if graph is not None}

    def run(self, key: object) -> bool:
        """Whether by a graph."""
        graph = self.graphs.find(key, lambda: self.capture(key))
        assert graph is None or graph.key == key
        return graph is not None

    def capture(self, key: object) -> Graph:
        if not self.has_memory:
            raise MatcherError("the GPU has no 9 MB left.")
        graph = Graph(key)
        self.captured.append(weakref.ref(graph))
        return graph


def test_what_returns_is_captured_once_at_its_third_sighting() -> None:
    stage = Stage()
    assert [stage.run("a") for _ in range(6)] == [False, False, True, True, True, True]
    assert stage.num_captured == stage.graphs.num_captured == 1


def test_what_never_returns_is_never_captured() -> None:
    stage = Stage()
    assert not any(stage.run(number) for number in range(1000))
    assert len(stage.graphs._sightings) <= 4, "nothing grows"


def test_what_returns_too_rarely_is_new_again() -> None:
    """As the numbers of points after pruning do: they are many, and each comes now and then."""
    stage = Stage()
    for number in range(600):
        stage.run("full")
        assert not stage.run(number % 5)
    assert stage.num_captured == 1


def test_the_least_recently_used_graph_makes_room() -> None:
    stage = Stage()
    for key in "abcdefgh":
        assert [stage.run(key) for _ in range(3)][-1]
    assert stage.run("a"), "used again"
    assert [stage.run("i") for _ in range(6)] == [False] * 5 + [True], "twice as many sightings once the room is full"
    assert stage.kept == set("acdefghi")
    assert stage.run("a") and not stage.run("b")


def test_capturing_becomes_rarer_where_graphs_are_dropped_again_and_again() -> None:
    stage = Stage()
    num_kinds = 9  # one more than there is room for, in turn
    for number in range(900):
        for _ in range(3):
            stage.run(number % num_kinds)
    assert 9 < stage.num_captured <= 40 and len(stage.kept) == 8


def test_a_stage_that_cannot_be_captured_runs_without_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    assert [stage.run("a") for _ in range(3)][-1]
    assert stage.kept == {"a"}
    stage.has_memory = False
    with caplog.at_level(logging.DEBUG, "feature_matcher_ros.runtimes.cuda_graphs"):
        assert not any(stage.run("b") for _ in range(5))
        stage.has_memory = True
        assert not any(stage.run(key) for key in "aaabbbccc"), "for good"
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.message == "the stage 'stage3' runs without CUDA graphs from now on: the GPU has no 9 MB left."
    assert stage.kept == set(), "what it had is given back"
