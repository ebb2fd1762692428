"""The graphs that a detector-free network is exported to, and what they take and give.

``backbone`` runs once for each image, ``round1`` and those after it for each pair, then ``full`` or ``optimized``, for
networks that have it, compares all cells with all cells, and ``fine`` finds the points in the cells that were matched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.models.dense_config import (
    DENSE_METHODS,
    DenseConfig,
    DenseTuning,
    config_from_manifest,
    tuning_from_manifest,
)
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec
from feature_matcher_ros.runtimes.manifest import open_graph, parse_network, read_manifest
from feature_matcher_ros.runtimes.runtime import Runtime

BACKBONE, ROUND, FINE = "backbone", "round", "fine"
FULL, OPTIMIZED = "full", "optimized"  # dual softmax, or bare similarities
FOLLOWING = "next_"  # before the name of a tensor that a round takes and gives


@dataclass(frozen=True, slots=True)
class DenseGraphs:
    """A detector-free network, opened."""

    config: DenseConfig
    backbone: Runtime
    rounds: tuple[Runtime, ...]
    coarse: Runtime
    is_optimized: bool  # ``coarse`` gives bare similarities instead of logarithms of probabilities
    fine: Runtime
    tuning: DenseTuning = field(default_factory=DenseTuning)


def round_name(number: int) -> str:
    """The graph of a round, counted from 1."""
    return f"{ROUND}{number}"


def is_round_name(name: str) -> bool:
    """Whether a graph of that name is a round."""
    return name.startswith(ROUND)


def coarse_names(config: DenseConfig) -> tuple[str, ...]:
    """The graphs that compare cells, of which one is used."""
    return (FULL, OPTIMIZED) if config.has_optimized else (FULL,)


def dense_specs(config: DenseConfig) -> Mapping[str, GraphSpec]:
    """All graphs of a network by name, in the order in which they run."""
    specs = {BACKBONE: _backbone_spec(config)}
    for number in range(1, config.rounds + 1):
        specs[round_name(number)] = _round_spec(config, has_confidence=config.has_confidence and number < config.rounds)
    return specs | dict.fromkeys(coarse_names(config), _coarse_spec(config)) | {FINE: _fine_spec(config)}


def open_dense(folder: Path, is_optimized: bool = False, runtime: str = "auto", num_threads: int = 0) -> DenseGraphs:
    """Open an exported network after checking that its files are the ones that were exported.

    Raises:
        RuntimeLoadError: the folder holds no such network, a file was changed, the runtime cannot open it, or the
            network's bare similarities cannot be taken for scores.
    """
    manifest = read_manifest(folder)
    config, tuning = parse_network(
        folder,
        manifest,
        DENSE_METHODS,
        lambda network: (config_from_manifest(manifest.method, network), tuning_from_manifest(network)),
    )
    if is_optimized and not config.has_optimized:
        raise RuntimeLoadError(
            f"{folder} holds a network of {config.method}, which compares by probabilities alone: "
            f"choose matcher.coarse = {FULL}."
        )
    specs = dense_specs(config)

    def opened(name: str) -> Runtime:
        return open_graph(folder, manifest, name, specs[name], runtime, num_threads)

    rounds = tuple(opened(round_name(number)) for number in range(1, config.rounds + 1))
    coarse = opened(OPTIMIZED if is_optimized else FULL)
    return DenseGraphs(config, opened(BACKBONE), rounds, coarse, is_optimized, opened(FINE), tuning)


def _backbone_spec(config: DenseConfig) -> GraphSpec:
    """A grey image in [0, 1], and where it has content, become features of three sizes."""
    return GraphSpec(
        inputs=(TensorSpec("image", (1, 1, "height", "width"), "float32"), _cells("")),
        outputs=(_state(config, ""), *_maps(config, "")),
    )


def _round_spec(config: DenseConfig, has_confidence: bool) -> GraphSpec:
    """States after one more round; where the network knows, how final the match of each cell of either image is."""
    states = _state(config, "0"), _state(config, "1")
    outputs = [TensorSpec(FOLLOWING + state.name, state.shape, state.dtype) for state in states]
    if has_confidence:
        outputs += [TensorSpec(f"confidence{side}", (f"rows{side}", f"columns{side}"), "float32") for side in "01"]
    return GraphSpec((*states, _cells("0"), _cells("1")), tuple(outputs))


def _coarse_spec(config: DenseConfig) -> GraphSpec:
    """The best cell of image 1 for each of image 0, how good it is, and how good the best one of each of image 1 is.

    A pair is mutually best exactly if both values are the same.
    """
    return GraphSpec(
        inputs=(_state(config, "0"), _state(config, "1"), _cells("0"), _cells("1")),
        outputs=(
            TensorSpec("best0", ("cells0",), "int64"),
            TensorSpec("values0", ("cells0",), "float32"),
            TensorSpec("values1", ("cells1",), "float32"),
        ),
    )


def _fine_spec(config: DenseConfig) -> GraphSpec:
    """Where the points of pairs of cells lie, in pixels from the places of these."""
    return GraphSpec(
        inputs=(
            _state(config, "0"),
            _state(config, "1"),
            *_maps(config, "_0"),
            *_maps(config, "_1"),
            TensorSpec("cell0", ("matches",), "int64"),
            TensorSpec("cell1", ("matches",), "int64"),
        ),
        outputs=(
            TensorSpec("offsets0", ("matches", 2), "float32"),
            TensorSpec("offsets1", ("matches", 2), "float32"),
        ),
    )


def _state(config: DenseConfig, side: str) -> TensorSpec:
    return TensorSpec(f"state{side}", (1, config.width, f"rows{side}", f"columns{side}"), "float32")


def _cells(side: str) -> TensorSpec:
    return TensorSpec(f"cells{side}", (1, 1, f"rows{side}", f"columns{side}"), "float32")


def _maps(config: DenseConfig, side: str) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name + side, (1, channels, f"{name}_rows{side}", f"{name}_columns{side}"), "float32")
        for name, (channels, _) in config.maps.items()
    )
