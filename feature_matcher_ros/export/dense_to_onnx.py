"""Exports a detector-free network to ONNX graphs with a manifest, each checked against it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feature_matcher_ros.errors import OutputError
from feature_matcher_ros.export.comparison import as_arrays, largest_difference, random_image
from feature_matcher_ros.export.graph_builder import OPSET
from feature_matcher_ros.export.to_onnx import STANDARD_OPERATORS, Origin, exporter_versions
from feature_matcher_ros.matchers.adaptive import require_fitting_thresholds
from feature_matcher_ros.matchers.dense_graphs import (
    BACKBONE,
    FINE,
    FOLLOWING,
    FULL,
    OPTIMIZED,
    DenseGraphs,
    coarse_names,
    dense_specs,
    round_name,
)
from feature_matcher_ros.models.dense_config import CELL_PX, DenseConfig, DenseTuning
from feature_matcher_ros.models.dense_stages import AnyDenseNetwork, BackboneStage, CoarseStage, FineStage, RoundStage
from feature_matcher_ros.runtimes import open_runtime
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec
from feature_matcher_ros.runtimes.manifest import GraphEntry, Manifest, sha256_of, write_manifest
from feature_matcher_ros.runtimes.torch_runtime import TorchRuntime

_CHECK_SIZES = (((96, 128), (96, 128)), ((64, 160), (128, 96)))  # (height, width) of either image
_CHECK_MATCHES = (0, 1, 60)


def dense_by_torch(network: AnyDenseNetwork, is_optimized: bool = False) -> DenseGraphs:
    """Open a network for execution by torch, without any file."""
    specs, stages = dense_specs(network.config), _stages(network)
    opened = {name: TorchRuntime(stage, specs[name]) for name, stage in stages.items()}
    rounds = tuple(opened[round_name(number)] for number in range(1, network.config.rounds + 1))
    coarse = opened[OPTIMIZED if is_optimized else FULL]
    return DenseGraphs(network.config, opened[BACKBONE], rounds, coarse, is_optimized, opened[FINE])


def export_dense(network: AnyDenseNetwork, origin: Origin, folder: Path, tuning: DenseTuning | None = None) -> Manifest:
    """Write all graphs of a network and their manifest into a folder, which is made if it is not there.

    Raises:
        MatcherError: the thresholds of ``tuning`` do not fit the network, or a graph computes something else.
        OutputError: the folder cannot be written.
    """
    config = network.config
    tuning = tuning or DenseTuning()
    if tuning.confidence_thresholds:
        require_fitting_thresholds(tuning.confidence_thresholds, config.rounds if config.has_confidence else 0)
    specs, stages = dense_specs(config), _stages(network)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, example in _examples(stages, specs, config):
            _trace(_Positional(stages[name], specs[name]), example, specs[name], folder / f"{name}.onnx")
    except OSError as error:
        raise OutputError(f"cannot write the graphs to {folder} ({error}): choose a writable folder.") from error
    differences = _checked(stages, specs, config, folder)
    entries = {
        name: GraphEntry(f"{name}.onnx", sha256_of(folder / f"{name}.onnx"), spec, differences[name])
        for name, spec in specs.items()
    }
    network_entry = asdict(config) | asdict(tuning)
    manifest = Manifest(
        config.method,
        origin.weights,
        origin.licence,
        origin.source,
        STANDARD_OPERATORS,
        network_entry,
        entries,
        exporter_versions(),
    )
    write_manifest(folder, manifest)
    return manifest


def _stages(network: AnyDenseNetwork) -> dict[str, nn.Module]:
    stages: dict[str, nn.Module] = {BACKBONE: BackboneStage(network)}
    stages |= {round_name(number + 1): RoundStage(network, number) for number in range(network.config.rounds)}
    stages |= {name: CoarseStage(network, name == OPTIMIZED) for name in coarse_names(network.config)}
    return stages | {FINE: FineStage(network)}


class _Positional(nn.Module):
    """A stage whose tensors are told apart by their order."""

    def __init__(self, stage: nn.Module, spec: GraphSpec) -> None:
        super().__init__()
        self.stage = stage
        self._inputs = [tensor.name for tensor in spec.inputs]
        self._outputs = [tensor.name for tensor in spec.outputs]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = self.stage(dict(zip(self._inputs, tensors, strict=True)))
        return tuple(found[name] for name in self._outputs)


def _trace(module: nn.Module, example: tuple[Tensor, ...], spec: GraphSpec, path: Path) -> None:
    """Write a graph whose named sizes may change.

    The exporter by tracing is used: the one by symbolic evaluation takes forty times as long for the same graphs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says of itself that it is the older one
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            dynamic_axes={tensor.name: _dynamic(tensor) for tensor in (*spec.inputs, *spec.outputs)},
            opset_version=OPSET,
            dynamo=False,
        )


def _dynamic(tensor: TensorSpec) -> dict[int, str]:
    return {axis: size for axis, size in enumerate(tensor.shape) if isinstance(size, str)}


def _examples(
    stages: Mapping[str, nn.Module], specs: Mapping[str, GraphSpec], config: DenseConfig
) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """The inputs of every graph for two images of different sizes."""
    sizes = (4 * config.multiple, 5 * config.multiple), (6 * config.multiple, 3 * config.multiple)
    for name, given, _ in _run(stages, specs, config, sizes, num_matches=9):
        yield name, tuple(torch.from_numpy(given[tensor.name]) for tensor in specs[name].inputs)


def _run(
    stages: Mapping[str, nn.Module],
    specs: Mapping[str, GraphSpec],
    config: DenseConfig,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    num_matches: int,
) -> Iterator[tuple[str, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
    """Send two random images through the network and yield what each graph is given and must return."""
    rng = np.random.default_rng(num_matches)
    tensors: dict[str, NDArray[Any]] = {}
    backbone = TorchRuntime(stages[BACKBONE], specs[BACKBONE])
    for side, size in enumerate(sizes):
        given: dict[str, NDArray[Any]] = {"image": random_image(size, 1, rng), "cells": _cells(size)}
        found = as_arrays(backbone.run(given))
        tensors |= {f"state{side}": found["state"], f"cells{side}": given["cells"]}
        tensors |= {f"{name}_{side}": found[name] for name in config.maps}
        tensors[f"cell{side}"] = rng.integers(0, given["cells"].size, num_matches)
    yield BACKBONE, given, found
    for name, stage in stages.items():
        if name == BACKBONE:
            continue
        chosen = {tensor.name: tensors[tensor.name] for tensor in specs[name].inputs}
        found = as_arrays(TorchRuntime(stage, specs[name]).run(chosen))
        yield name, chosen, found
        tensors |= {key.removeprefix(FOLLOWING): value for key, value in found.items() if key.startswith(FOLLOWING)}


def _cells(size: tuple[int, int]) -> NDArray[np.float32]:
    """All cells but the last row and column have content."""
    cells = np.zeros((1, 1, size[0] // CELL_PX, size[1] // CELL_PX), np.float32)
    cells[:, :, :-1, :-1] = 1.0
    return cells


def _checked(
    stages: Mapping[str, nn.Module], specs: Mapping[str, GraphSpec], config: DenseConfig, folder: Path
) -> dict[str, float]:
    """Run every graph beside the network; the largest difference of each."""
    opened = {name: open_runtime(folder / f"{name}.onnx", spec, "onnx", 1) for name, spec in specs.items()}
    differences = dict.fromkeys(specs, 0.0)
    for sizes in _CHECK_SIZES:
        for num_matches in _CHECK_MATCHES:
            for name, given, expected in _run(stages, specs, config, sizes, num_matches):
                found = as_arrays(opened[name].run(given))
                differences[name] = max(differences[name], largest_difference(name, found, expected))
    return differences
