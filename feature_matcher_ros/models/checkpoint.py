"""Reads files of weights, without ever running code from them, and loads them into their networks."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from feature_matcher_ros.errors import WeightsError

_Network = TypeVar("_Network", bound=nn.Module)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The named tensors of a ``.safetensors`` file, or of a torch file that holds nothing but tensors.

    A torch file whose tensors lie one level deeper, as ``{"extractor": {...}}`` or ``{"state_dict": {...}}``, gives
    those.

    Raises:
        WeightsError: the file is missing, damaged, or holds something else than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there are no weights {path}: give the path of a .safetensors or .pth file.")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        # What torch says of other content than tensors is advice to run it.
        is_foreign = isinstance(error, pickle.UnpicklingError)
        cause = "it is no torch file of tensors alone" if is_foreign else " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} cannot be read as weights ({cause}): download or export it again.") from error
    for deeper in ("extractor", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(deeper), Mapping):
            content = content[deeper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds something else than named tensors: give a file of weights alone.")
    for name, tensor in content.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"the tensor '{name}' of {path} is NaN or infinite: download or train the weights again."
            )
    return dict(content)


def named_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a checkpoint as a network names them, in float32."""
    named = {name.removeprefix("matcher."): tensor for name, tensor in tensors.items()}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in named.items()}


def loaded(network: _Network, tensors: Mapping[str, Tensor], method: str) -> _Network:
    """The network with these tensors, ready for inference; ``method`` names it in the error.

    Raises:
        WeightsError: the tensors are not those of the network.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(
            f"the checkpoint is not one of {method} ({' '.join(str(error).split())[:200]}): give the file that its "
            "authors published."
        ) from error
    return network.eval().requires_grad_(False)


def count_parts(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many different names follow a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})
