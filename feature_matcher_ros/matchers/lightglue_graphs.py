"""The graphs that a LightGlue network is exported to, and what they take and give.

The points of both images travel as one tensor, those of the keyframe first: most of a layer treats all points
alike, and one large product is faster than two small ones. ``rows0`` and ``rows1`` say which rows of it are the
points of either image that are still there; a stage begins by taking them out, so that dropping points costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feature_matcher_ros.models.lightglue_config import LightGlueConfig
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec
from feature_matcher_ros.runtimes.manifest import open_graph, parse_network, read_manifest
from feature_matcher_ros.runtimes.runtime import Runtime

METHOD = "lightglue"
EMBED, STAGE, HEAD = "embed", "stage", "head"
CONFIDENCE, MATCHABILITY = "confidence_thresholds", "matchability_thresholds"  # in the manifest
FOLLOWING = "next_"  # before the name of a tensor, where a stage takes it and gives it


@dataclass(frozen=True, slots=True)
class Stage:
    """Some layers in a row, and what reads the matches off the states after them."""

    layers_done: int  # counted from the beginning of the network
    layers: Runtime
    head: Runtime


@dataclass(frozen=True, slots=True)
class LightGlueGraphs:
    """A network, opened: ``embed``, then stage after stage, then the head of the last stage that was run."""

    config: LightGlueConfig
    embed: Runtime
    stages: tuple[Stage, ...]
    confidence_thresholds: tuple[float, ...] = ()  # chosen for this network, by layer; none: as in the paper
    matchability_thresholds: tuple[float, ...] = ()  # likewise


def embed_spec(config: LightGlueConfig) -> GraphSpec:
    """Descriptors and positions become states and angles."""
    return GraphSpec(
        inputs=(
            TensorSpec("descriptors", ("points", config.descriptor_size), "float32"),
            TensorSpec("positions", ("points", config.position_size), "float32"),
        ),
        outputs=(_state(config, "points"), *_angles(config, "points")),
    )


def stage_spec(config: LightGlueConfig, is_last: bool) -> GraphSpec:
    """The surviving rows, some layers later, with (confidence, matchability) of each except after the last stage."""
    inputs = (_state(config, "points"), *_angles(config, "points"), *_rows())
    state, cosines, sines = (
        TensorSpec(FOLLOWING + tensor.name, ("kept", *tensor.shape[1:]), tensor.dtype) for tensor in inputs[:3]
    )
    certainty = TensorSpec("certainty", ("kept", 2), "float32")
    return GraphSpec(inputs, (state,) if is_last else (state, cosines, sines, certainty))


def head_spec(config: LightGlueConfig) -> GraphSpec:
    """The most likely partner of each point of image 0, and how likely is the most likely one of each point.

    A pair is mutually best exactly if both its points have the same likelihood.
    """
    return GraphSpec(
        inputs=(_state(config, "points"), *_rows()),
        outputs=(
            TensorSpec("best0", ("points0",), "int64"),
            TensorSpec("log_scores0", ("points0",), "float32"),
            TensorSpec("log_scores1", ("points1",), "float32"),
        ),
    )


def open_lightglue(folder: Path, runtime: str = "auto", num_threads: int = 0) -> LightGlueGraphs:
    """Open an exported network after checking that every file is the one that was exported.

    Raises:
        RuntimeLoadError: the folder holds no LightGlue network, a file was changed, or the runtime cannot open it.
    """
    manifest = read_manifest(folder)
    config, stage_ends, confidence, matchability = parse_network(folder, manifest, (METHOD,), _parts_of)

    def opened(name: str, spec: GraphSpec) -> Runtime:
        return open_graph(folder, manifest, name, spec, runtime, num_threads)

    stages = tuple(
        Stage(
            end,
            opened(stage_name(end), stage_spec(config, end == config.layers)),
            opened(head_name(end), head_spec(config)),
        )
        for end in stage_ends
    )
    return LightGlueGraphs(config, opened(EMBED, embed_spec(config)), stages, confidence, matchability)


def stage_name(layers_done: int) -> str:
    """The graph whose last layer is that one, counted from 1."""
    return f"{STAGE}{layers_done}"


def is_stage_name(name: str) -> bool:
    """Whether a graph of that name is a stage: nearly all of the work."""
    return name.startswith(STAGE)


def head_name(layers_done: int) -> str:
    """The graph that reads the matches off the states after that many layers."""
    return f"{HEAD}{layers_done}"


def _parts_of(
    network: dict[str, Any],
) -> tuple[LightGlueConfig, tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """The configuration of a network, where its stages end, and its thresholds of confidence and of matchability."""
    stage_ends = tuple(map(int, network.pop("stage_ends")))
    confidence, matchability = (tuple(map(float, network.pop(name, ()))) for name in (CONFIDENCE, MATCHABILITY))
    return LightGlueConfig(**network), stage_ends, confidence, matchability


def network_entry(
    config: LightGlueConfig,
    stage_ends: tuple[int, ...],
    confidence_thresholds: tuple[float, ...],
    matchability_thresholds: tuple[float, ...],
) -> Mapping[str, Any]:
    """What the manifest says of the network."""
    thresholds = threshold_entries(confidence_thresholds, matchability_thresholds)
    return {**asdict(config), "stage_ends": list(stage_ends), **thresholds}


def threshold_entries(
    confidence_thresholds: tuple[float, ...], matchability_thresholds: tuple[float, ...]
) -> Mapping[str, list[float]]:
    """The part of it that says when to stop and what to drop; thresholds that were not chosen are left out."""
    chosen = {CONFIDENCE: list(confidence_thresholds), MATCHABILITY: list(matchability_thresholds)}
    return {name: values for name, values in chosen.items() if values}


def _state(config: LightGlueConfig, points: str) -> TensorSpec:
    return TensorSpec("state", (points, config.width), "float32")


def _angles(config: LightGlueConfig, points: str) -> tuple[TensorSpec, TensorSpec]:
    shape = (points, config.head_size // 2)
    return TensorSpec("cosines", shape, "float32"), TensorSpec("sines", shape, "float32")


def _rows() -> tuple[TensorSpec, TensorSpec]:
    return TensorSpec("rows0", ("points0",), "int32"), TensorSpec("rows1", ("points1",), "int32")
