"""Exports a network that detects and describes points to two ONNX graphs with a manifest, checked against it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feature_matcher_ros.errors import MatcherError, OutputError
from feature_matcher_ros.export.comparison import as_arrays, largest_difference, random_image
from feature_matcher_ros.export.graph_builder import OPSET
from feature_matcher_ros.export.to_onnx import STANDARD_OPERATORS, Origin, exporter_versions
from feature_matcher_ros.extractors.point_graphs import (
    DESCRIBE,
    DETECT,
    PointGraphs,
    describe_spec,
    detect_spec,
)
from feature_matcher_ros.models.point_network import PointNetwork
from feature_matcher_ros.models.point_networks import DescribeStage, DetectStage
from feature_matcher_ros.runtimes import open_runtime
from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.manifest import GraphEntry, Manifest, sha256_of, write_manifest
from feature_matcher_ros.runtimes.torch_runtime import TorchRuntime

_CHECK_SIZES = ((96, 160), (224, 192))  # (height, width), multiples of all networks' multiples
_MIN_COMMON = 0.99  # share of points that both detect


def points_by_torch(network: PointNetwork) -> PointGraphs:
    """Open a network for execution by torch, without any file."""
    config = network.config
    return PointGraphs(
        config,
        TorchRuntime(DetectStage(network), detect_spec(config)),
        TorchRuntime(DescribeStage(network), describe_spec(config)),
    )


def export_points(network: PointNetwork, origin: Origin, folder: Path) -> Manifest:
    """Write both graphs of a network and their manifest into a folder, which is made if it is not there.

    Raises:
        MatcherError: a graph does not compute what the network computes.
        OutputError: the folder cannot be written.
    """
    config = network.config
    specs = {DETECT: detect_spec(config), DESCRIBE: describe_spec(config)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, module, example, dynamic in _modules(network):
            _trace(module, example, dynamic, specs[name], folder / f"{name}.onnx")
    except OSError as error:
        raise OutputError(f"cannot write the graphs to {folder} ({error}): choose a writable folder.") from error
    opened = PointGraphs(
        config, *(open_runtime(folder / f"{name}.onnx", spec, "onnx", 1) for name, spec in specs.items())
    )
    differences = [_differences(points_by_torch(network), opened, size) for size in _CHECK_SIZES]
    entries = {
        name: GraphEntry(
            f"{name}.onnx", sha256_of(folder / f"{name}.onnx"), spec, max(measured[name] for measured in differences)
        )
        for name, spec in specs.items()
    }
    manifest = Manifest(
        config.name,
        origin.weights,
        origin.licence,
        origin.source,
        STANDARD_OPERATORS,
        asdict(config),
        entries,
        exporter_versions(),
    )
    write_manifest(folder, manifest)
    return manifest


class _Detect(nn.Module):
    def __init__(self, network: PointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.network.detect(image, valid)


class _Describe(nn.Module):
    def __init__(self, network: PointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, keypoints: Tensor) -> Tensor:
        return self.network.describe(features, keypoints)


def _modules(network: PointNetwork) -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...], dict[str, Any]]]:
    """Name, module, example inputs and dynamic sizes of either graph."""
    multiple, dim = network.config.multiple, torch.export.Dim
    image = torch.rand(1, network.config.channels, 6 * multiple, 8 * multiple)
    height, width = multiple * dim("height"), multiple * dim("width")
    size = {2: height, 3: width}
    valid = torch.ones(1, 1, *image.shape[2:])
    yield DETECT, _Detect(network), (image, valid), {"image": size, "valid": size}
    with torch.inference_mode():
        features = network.detect(image, valid)[2]
    keypoints = torch.rand(10, 2) * multiple + multiple
    sizes = {"features": {2: dim("rows"), 3: dim("columns")}, "keypoints": {0: dim("points")}}
    yield DESCRIBE, _Describe(network), (features.clone(), keypoints), sizes


def _trace(
    module: nn.Module, example: tuple[Tensor, ...], dynamic: dict[str, Any], spec: GraphSpec, path: Path
) -> None:
    with _quiet("torch.onnx"):
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        program.optimize()
        program.save(str(path))


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """The exporter warns of operators of torchvision, which is not used, and of its own outdated ways."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _differences(expected: PointGraphs, found: PointGraphs, size: tuple[int, int]) -> dict[str, float]:
    """Run a random image through both; returns the largest difference of either graph.

    Raises:
        MatcherError: it is more than rounding explains, or the points are others.
    """
    image = random_image(size, expected.config.channels, np.random.default_rng(0))
    valid = np.ones((1, 1, *size), np.float32)
    valid[:, :, :, -7:] = 0.0
    outputs, wanted = (as_arrays(graphs.detect.run({"image": image, "valid": valid})) for graphs in (found, expected))
    is_point, is_wanted = outputs["scores"] > 0, wanted["scores"] > 0
    both = is_point & is_wanted
    if np.count_nonzero(both) < _MIN_COMMON * np.count_nonzero(is_point | is_wanted):
        raise MatcherError(
            f"the exported {expected.config.name} finds other points than its network: "
            "the installed versions of torch and onnxruntime do not work together, change one of them."
        )
    outputs["scores"], wanted["scores"] = outputs["scores"][both], wanted["scores"][both]
    keypoints = np.random.default_rng(0).uniform(8, min(size) - 9, (50, 2)).astype(np.float32)
    given = {"features": wanted["features"], "keypoints": keypoints}
    described, wanted_descriptors = (as_arrays(graphs.describe.run(given)) for graphs in (found, expected))
    return {
        DETECT: largest_difference(DETECT, outputs, wanted),
        DESCRIBE: largest_difference(DESCRIBE, described, wanted_descriptors),
    }
