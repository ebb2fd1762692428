"""Exports a SuperGlue network to ONNX graphs with a manifest, each checked against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from feature_matcher_ros.export.comparison import as_arrays, largest_difference
from feature_matcher_ros.export.superglue_graph import superglue_graphs
from feature_matcher_ros.export.to_onnx import FUSED_OPERATORS, Origin, exporter_versions, write_graphs
from feature_matcher_ros.matchers.lightglue_graphs import EMBED, FOLLOWING, head_name, stage_name
from feature_matcher_ros.matchers.superglue_graphs import METHOD, SuperGlueGraphs, superglue_specs
from feature_matcher_ros.models.superglue import SuperGlueModel
from feature_matcher_ros.models.superglue_config import SuperGlueConfig
from feature_matcher_ros.models.superglue_stages import EmbedStage, HeadStage, LayerStage
from feature_matcher_ros.runtimes import open_runtime
from feature_matcher_ros.runtimes.manifest import GraphEntry, Manifest, sha256_of, write_manifest
from feature_matcher_ros.runtimes.runtime import Runtime, Tensor
from feature_matcher_ros.runtimes.torch_runtime import TorchRuntime

_NUM_CHECK_POINTS = ((64, 48), (1, 3), (1, 1))  # in either image


def superglue_by_torch(model: SuperGlueModel) -> SuperGlueGraphs:
    """Open a network for execution by torch, without any file."""
    return SuperGlueGraphs(model.config, *_torch_runtimes(model).values())


def export_superglue(model: SuperGlueModel, origin: Origin, folder: Path) -> Manifest:
    """Write all graphs of a network and their manifest into a folder, which is made if it is not there.

    Raises:
        MatcherError: a graph does not compute what the network computes.
        OutputError: the folder cannot be written.
    """
    write_graphs(superglue_graphs(model), folder)
    entries, network = _checked_entries(model, folder), asdict(model.config)
    manifest = Manifest(
        METHOD, origin.weights, origin.licence, origin.source, FUSED_OPERATORS, network, entries, exporter_versions()
    )
    write_manifest(folder, manifest)
    return manifest


def _torch_runtimes(model: SuperGlueModel) -> dict[str, Runtime]:
    stages = (EmbedStage(model), LayerStage(model), HeadStage(model))
    specs = superglue_specs(model.config)
    return {name: TorchRuntime(stage, spec) for (name, spec), stage in zip(specs.items(), stages, strict=True)}


def _checked_entries(model: SuperGlueModel, folder: Path) -> dict[str, GraphEntry]:
    """Run every graph beside the network, on the network's own tensors, and write down how much they differ."""
    references = _torch_runtimes(model)
    paths = {name: folder / f"{name}.onnx" for name in references}
    opened = {name: open_runtime(paths[name], reference.spec, "onnx", 1) for name, reference in references.items()}
    differences = dict.fromkeys(references, 0.0)
    for seed, num_points in enumerate(_NUM_CHECK_POINTS):
        for name, given, expected in _example_run(references, model.config, num_points, seed):
            found = opened[name].run(given)
            differences[name] = max(differences[name], largest_difference(name, found, expected))
    return {
        name: GraphEntry(path.name, sha256_of(path), references[name].spec, differences[name])
        for name, path in paths.items()
    }


def _example_run(
    references: Mapping[str, Runtime], config: SuperGlueConfig, num_points: tuple[int, int], seed: int
) -> Iterator[tuple[str, Mapping[str, Tensor], Mapping[str, Tensor]]]:
    """Send random points through the network and yield what each graph is given and must return."""
    rng = np.random.default_rng(seed)
    states: dict[str, Tensor] = {}
    for side, count in enumerate(num_points):
        given = _random_points(rng, count, config.width)
        expected = as_arrays(references[EMBED].run(given))
        states[f"state{side}"] = expected["state"]
        yield EMBED, given, expected
    for name in (stage_name(config.layers), head_name(config.layers)):
        expected = as_arrays(references[name].run(states))
        yield name, states, expected
        states = {tensor.removeprefix(FOLLOWING): value for tensor, value in expected.items()}


def _random_points(rng: np.random.Generator, count: int, width: int) -> dict[str, Tensor]:
    descriptors = rng.standard_normal((count, width))
    given = {
        "descriptors": descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        "positions": rng.uniform(-0.7, 0.7, (count, 2)),
        "keypoint_scores": rng.uniform(0.0, 1.0, count),
    }
    return {name: values.astype(np.float32) for name, values in given.items()}
