"""Exports a LightGlue model to a folder of ONNX graphs with a manifest, each checked against the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx

from feature_matcher_ros.errors import MatcherError, OutputError
from feature_matcher_ros.export.lightglue_graph import embed_graph, head_graph, stage_graph
from feature_matcher_ros.export.to_torch import checked_stage_ends, lightglue_by_torch
from feature_matcher_ros.matchers.adaptive import require_fitting_thresholds
from feature_matcher_ros.matchers.lightglue_graphs import (
    EMBED,
    FOLLOWING,
    METHOD,
    head_name,
    network_entry,
    stage_name,
)
from feature_matcher_ros.models.lightglue import LightGlueModel
from feature_matcher_ros.runtimes import open_runtime
from feature_matcher_ros.runtimes.manifest import GraphEntry, Manifest, sha256_of, write_manifest
from feature_matcher_ros.runtimes.runtime import Runtime, Tensor

FUSED_OPERATORS, STANDARD_OPERATORS = "onnxruntime", "standard"  # as ``Manifest.operators`` calls them
# Differences of float32 results that stem from the order of summation and are no error. States grow to about 30.
_MAX_DIFFERENCE = 2e-3
_NUM_CHECK_POINTS = ((64, 48), (1, 3), (1, 1))  # in either image


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the weights of a model come from."""

    weights: str
    licence: str
    source: str


def export_lightglue(
    model: LightGlueModel,
    origin: Origin,
    folder: Path,
    stage_ends: Sequence[int] | None = None,
    confidence_thresholds: tuple[float, ...] = (),
    matchability_thresholds: tuple[float, ...] = (),
) -> Manifest:
    """Write all graphs of a model and their manifest into a folder, which is made if it is not there.

    ``stage_ends`` are the numbers of layers after which the network may be left, by default all possible;
    ``confidence_thresholds``, one for each layer, say when to leave it, ``matchability_thresholds`` which points to
    drop, by default as in the paper.

    Raises:
        MatcherError: stages or thresholds do not fit the model, or a graph does not compute what the model computes.
        OutputError: the folder cannot be written.
    """
    ends = checked_stage_ends(model.config, stage_ends)
    if confidence_thresholds:
        require_fitting_thresholds(confidence_thresholds, model.config.layers)
    if matchability_thresholds:
        require_fitting_thresholds(matchability_thresholds, model.config.layers, "matchability")
    write_graphs(_graphs(model, ends), folder)
    entries = _checked_entries(model, ends, folder)
    network = network_entry(model.config, ends, confidence_thresholds, matchability_thresholds)
    manifest = Manifest(
        METHOD, origin.weights, origin.licence, origin.source, FUSED_OPERATORS, network, entries, exporter_versions()
    )
    write_manifest(folder, manifest)
    return manifest


def write_graphs(graphs: Mapping[str, onnx.ModelProto], folder: Path) -> None:
    """Save graphs by their names into a folder, which is made if it is not there.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, graph in graphs.items():
            onnx.save(graph, str(folder / f"{name}.onnx"))
    except OSError as error:
        raise OutputError(f"cannot write the graphs to {folder} ({error}): choose a writable folder.") from error


def exporter_versions() -> dict[str, str]:
    """The versions of the programs that export."""
    return {package: version(package) for package in ("torch", "onnx", "onnxruntime", "numpy")}


def _graphs(model: LightGlueModel, ends: Sequence[int]) -> dict[str, onnx.ModelProto]:
    graphs = {EMBED: embed_graph(model)}
    for begin, end in pairwise((0, *ends)):
        graphs[stage_name(end)] = stage_graph(model, range(begin, end))
        graphs[head_name(end)] = head_graph(model, end - 1)
    return graphs


def _checked_entries(model: LightGlueModel, ends: Sequence[int], folder: Path) -> dict[str, GraphEntry]:
    """Run every graph beside the model, on the model's own tensors, and write down how much they differ."""
    references = lightglue_by_torch(model, ends)
    runtimes: dict[str, Runtime] = {EMBED: references.embed}
    for stage in references.stages:
        runtimes[stage_name(stage.layers_done)] = stage.layers
        runtimes[head_name(stage.layers_done)] = stage.head
    opened = {
        name: open_runtime(folder / f"{name}.onnx", reference.spec, "onnx", 1) for name, reference in runtimes.items()
    }
    differences = dict.fromkeys(runtimes, 0.0)
    for seed, num_points in enumerate(_NUM_CHECK_POINTS):
        for name, inputs, expected in _example_run(model, runtimes, num_points, seed):
            differences[name] = max(differences[name], _difference(name, opened[name].run(inputs), expected))
    paths = {name: folder / f"{name}.onnx" for name in runtimes}
    return {
        name: GraphEntry(paths[name].name, sha256_of(paths[name]), reference.spec, differences[name])
        for name, reference in runtimes.items()
    }


def _example_run(
    model: LightGlueModel, references: Mapping[str, Runtime], num_points: tuple[int, int], seed: int
) -> Iterator[tuple[str, Mapping[str, Tensor], Mapping[str, Tensor]]]:
    """Send random points through the model and yield what each graph is given and must return."""
    generator = np.random.default_rng(seed)
    descriptors = generator.standard_normal((sum(num_points), model.config.descriptor_size))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    positions = generator.uniform(-1.0, 1.0, (sum(num_points), model.config.position_size))
    given: dict[str, Tensor] = {
        "descriptors": descriptors.astype(np.float32),
        "positions": positions.astype(np.float32),
    }
    rows = np.arange(sum(num_points), dtype=np.int32)
    for name, reference in references.items():
        inputs = {tensor.name: given[tensor.name] for tensor in reference.spec.inputs}
        expected = {tensor: np.asarray(value) for tensor, value in reference.run(inputs).items()}
        yield name, inputs, expected
        given.update({tensor.removeprefix(FOLLOWING): value for tensor, value in expected.items()})
        given.update(rows0=rows[: num_points[0]], rows1=rows[num_points[0] :])


def _difference(name: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest difference of two outputs of a graph.

    Raises:
        MatcherError: it is more than rounding explains.
    """
    largest = max(float(np.abs(found[tensor] - value).max()) for tensor, value in expected.items())
    if not largest <= _MAX_DIFFERENCE:
        raise MatcherError(
            f"the graph '{name}' differs from its model by {largest:.2g} where {_MAX_DIFFERENCE} is allowed: "
            "the installed versions of onnx and onnxruntime do not work together, change one of them."
        )
    return largest
