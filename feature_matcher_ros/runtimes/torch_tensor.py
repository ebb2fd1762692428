"""What graphs that torch executes hand to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

HALVES = (torch.float16, torch.bfloat16)


class DeviceTensor:
    """A tensor that stays on its device until somebody asks numpy for an array of it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        tensor = self.tensor.float() if self.tensor.dtype in HALVES else self.tensor
        array: NDArray[Any] = tensor.cpu().numpy()
        return array if dtype is None else array.astype(dtype)


def as_tensor(value: Any) -> torch.Tensor:
    """Where it lies: on its device, or, of an array, on the host."""
    return value.tensor if isinstance(value, DeviceTensor) else torch.as_tensor(np.ascontiguousarray(value))
