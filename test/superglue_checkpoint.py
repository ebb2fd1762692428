"""Checkpoints as SuperGlue's authors publish them: the names and shapes are theirs, the values are not."""

from __future__ import annotations

from itertools import pairwise

import torch

Tensors = dict[str, torch.Tensor]


def published_shapes(
    width: int = 256, encoder_widths: tuple[int, ...] = (32, 64, 128, 256), layers: int = 9
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a network, as the public code of SuperGlue has them."""
    shapes: dict[str, tuple[int, ...]] = {"bin_score": ()}

    def convolution(name: str, before: int, after: int) -> None:
        shapes.update({f"{name}.weight": (after, before, 1), f"{name}.bias": (after,)})

    def perceptron(name: str, *widths: int) -> None:
        for number, (before, after) in enumerate(pairwise(widths)):
            convolution(f"{name}.{3 * number}", before, after)
            if number < len(widths) - 2:
                norm = f"{name}.{3 * number + 1}"
                shapes.update({f"{norm}.{part}": (after,) for part in ("weight", "bias")})
                shapes.update({f"{norm}.running_{part}": (after,) for part in ("mean", "var")})
                shapes[f"{norm}.num_batches_tracked"] = ()

    perceptron("kenc.encoder", 3, *encoder_widths, width)
    for layer in range(2 * layers):
        for part in ("merge", "proj.0", "proj.1", "proj.2"):
            convolution(f"gnn.layers.{layer}.attn.{part}", width, width)
        perceptron(f"gnn.layers.{layer}.mlp", 2 * width, 2 * width, width)
    convolution("final_proj", width, width)
    return shapes


def seeded_tensors(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """Random values under which signals neither vanish nor grow; nothing has its neutral value."""
    generator = torch.Generator().manual_seed(0)
    tensors: Tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            values = 0.5 + values.abs()
        elif len(shape) == 3:
            values = values * shape[1] ** -0.5
        tensors[name] = torch.tensor(1000) if name.endswith("num_batches_tracked") else values
    return tensors


def nearest_neighbour_tensors(width: int) -> Tensors:
    """A network that sees nothing but descriptors of unit length, whose scalar products it compares with 0.85."""
    tensors = {name: torch.zeros(shape) for name, shape in published_shapes(width, layers=1).items()}
    tensors |= {name: torch.ones_like(tensor) for name, tensor in tensors.items() if name.endswith("running_var")}
    sharpness = 60.0
    tensors["final_proj.weight"] = (sharpness * width**0.5) ** 0.5 * torch.eye(width)[:, :, None]
    tensors["bin_score"] = torch.tensor(0.85 * sharpness)
    return tensors
