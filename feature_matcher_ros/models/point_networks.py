"""The networks that detect and describe points, by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from feature_matcher_ros.errors import WeightsError
from feature_matcher_ros.models.aliked import Aliked
from feature_matcher_ros.models.checkpoint import loaded, named_tensors
from feature_matcher_ros.models.disk import Disk
from feature_matcher_ros.models.point_network import PointNetwork
from feature_matcher_ros.models.superpoint import SuperPoint
from feature_matcher_ros.models.xfeat import XFeat

_NAMES = ("aliked", "disk", "superpoint", "xfeat")


def point_network_of_checkpoint(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the network whose tensors all are there; None if there is no such network."""
    return next((name for name in _NAMES if tensors.keys() >= _network(name).state_dict().keys()), None)


def point_network_from_checkpoint(name: str, tensors: Mapping[str, Tensor]) -> Aliked | Disk | SuperPoint | XFeat:
    """Build a network with published weights, in float32, ready for inference.

    Raises:
        WeightsError: there is no network of that name, or the tensors are not its.
    """
    # XFeat's file also has a network that refines dense matches, which is not used here.
    named = {key: tensor for key, tensor in named_tensors(tensors).items() if not key.startswith("fine_matcher.")}
    return loaded(_network(name), named, name)


def _network(name: str) -> Aliked | Disk | SuperPoint | XFeat:
    if name == "aliked":
        return Aliked()
    if name == "disk":
        return Disk()
    if name == "superpoint":
        return SuperPoint()
    if name == "xfeat":
        return XFeat()
    raise WeightsError(f"there is no network '{name}' that detects points: choose aliked, disk, superpoint or xfeat.")


class DetectStage(nn.Module):
    """The first step of a point network: named tensors in, named tensors out, as an extractor's graphs."""

    def __init__(self, network: PointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        scores, shifts, features = self.network.detect(tensors["image"], tensors["valid"])
        return {"scores": scores, "shifts": shifts, "features": features}


class DescribeStage(nn.Module):
    """The second step of a point network, likewise."""

    def __init__(self, network: PointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"descriptors": self.network.describe(tensors["features"], tensors["keypoints"])}
