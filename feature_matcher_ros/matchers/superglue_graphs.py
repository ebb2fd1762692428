"""The graphs that a SuperGlue network is exported to, and what they take and give.

``embed`` runs once for each image; the stage with all layers, and the head, once for each pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_matcher_ros.matchers.lightglue_graphs import EMBED, FOLLOWING, head_name, stage_name
from feature_matcher_ros.models.superglue_config import SuperGlueConfig
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec
from feature_matcher_ros.runtimes.manifest import open_graph, parse_network, read_manifest
from feature_matcher_ros.runtimes.runtime import Runtime

METHOD = "superglue"


@dataclass(frozen=True, slots=True)
class SuperGlueGraphs:
    """A network, opened."""

    config: SuperGlueConfig
    embed: Runtime
    layers: Runtime
    head: Runtime


def superglue_specs(config: SuperGlueConfig) -> Mapping[str, GraphSpec]:
    """All graphs of a network by name, in the order in which they run."""
    return {
        EMBED: _embed_spec(config),
        stage_name(config.layers): _layers_spec(config),
        head_name(config.layers): _head_spec(config),
    }


def open_superglue(folder: Path, runtime: str = "auto", num_threads: int = 0) -> SuperGlueGraphs:
    """Open an exported network after checking that its files are the ones that were exported.

    Raises:
        RuntimeLoadError: the folder holds no SuperGlue network, a file was changed, or the runtime cannot open it.
    """
    manifest = read_manifest(folder)
    config = parse_network(folder, manifest, (METHOD,), _config_from)
    opened = (
        open_graph(folder, manifest, name, spec, runtime, num_threads) for name, spec in superglue_specs(config).items()
    )
    return SuperGlueGraphs(config, *opened)


def _config_from(network: dict[str, Any]) -> SuperGlueConfig:
    return SuperGlueConfig(**{**network, "encoder_widths": tuple(network["encoder_widths"])})


def _embed_spec(config: SuperGlueConfig) -> GraphSpec:
    """Descriptors, places and scores of the points of one image become states."""
    return GraphSpec(
        inputs=(
            TensorSpec("descriptors", ("points0", config.width), "float32"),
            TensorSpec("positions", ("points0", 2), "float32"),
            TensorSpec("keypoint_scores", ("points0",), "float32"),
        ),
        outputs=(TensorSpec("state", ("points0", config.width), "float32"),),
    )


def _layers_spec(config: SuperGlueConfig) -> GraphSpec:
    """The states of either image after all layers."""
    states = _states(config)
    return GraphSpec(states, tuple(TensorSpec(FOLLOWING + state.name, state.shape, state.dtype) for state in states))


def _head_spec(config: SuperGlueConfig) -> GraphSpec:
    """The most likely partner of each point of image 0, and how likely is the most likely one of each point."""
    return GraphSpec(
        inputs=_states(config),
        outputs=(
            TensorSpec("best0", ("points0",), "int64"),
            TensorSpec("log_scores0", ("points0",), "float32"),
            TensorSpec("log_scores1", ("points1",), "float32"),
        ),
    )


def _states(config: SuperGlueConfig) -> tuple[TensorSpec, TensorSpec]:
    state0, state1 = (TensorSpec(f"state{side}", (f"points{side}", config.width), "float32") for side in (0, 1))
    return state0, state1
