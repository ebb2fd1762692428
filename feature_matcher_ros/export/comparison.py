"""What exported graphs are compared with their networks on, and how far apart they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_matcher_ros.errors import MatcherError

_MAX_DIFFERENCE = 1e-3  # of what graph and network compute, relative to the largest value
_SAME_CHOICES = 0.8  # share of cells and pixels that both choose; where two are nearly as good, rounding decides


def largest_difference(name: str, found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> float:
    """The largest difference of two outputs of a graph, relative to the largest value; of what is chosen alike.

    Raises:
        MatcherError: it is more than rounding explains.
    """
    largest = 0.0
    for tensor, value in expected.items():
        differences = np.abs(found[tensor] - value) / max(1.0, np.abs(value).max(initial=0.0))
        if tensor == "best0" or tensor.startswith("offsets"):
            is_other = differences > _MAX_DIFFERENCE
            is_rounding = np.count_nonzero(is_other) <= (1.0 - _SAME_CHOICES) * is_other.size
            differences = differences[~is_other] if is_rounding else differences
        largest = max(largest, float(differences.max(initial=0.0)))
    if not largest <= _MAX_DIFFERENCE:
        raise MatcherError(
            f"the graph '{name}' differs from its network by {largest:.2g} where {_MAX_DIFFERENCE} is allowed: "
            "the installed versions of torch and onnxruntime do not work together, change one of them."
        )
    return largest


def random_image(size: tuple[int, int], channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random image without fine noise, (1, channels, height, width) in [0, 1]."""
    coarse = torch.from_numpy(rng.random((1, channels, size[0] // 4, size[1] // 4), np.float32))
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear").numpy()


def as_arrays(tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Tensors of any runtime, on the host."""
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}
