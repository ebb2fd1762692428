"""The seam between a matcher and what executes its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.meter import Meter

Tensor = NDArray[Any]


class Runtime(Protocol):
    """Executes one exported graph: named tensors in, named tensors out."""

    @property
    def name(self) -> str:
        """The name, as written in the configuration and in diagnostics."""

    @property
    def precision(self) -> str:
        """The type in which most is computed, "float32" or "float16"; for diagnostics."""

    @property
    def spec(self) -> GraphSpec:
        """What the graph takes and gives."""

    @property
    def meter(self) -> Meter:
        """The meter of the device on which the graph is executed."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Execute the graph; takes exactly the inputs of the spec and returns all its outputs."""
