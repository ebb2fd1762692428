"""The torch model against arithmetic written out in NumPy, and the reading of checkpoints."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the models need torch: pip install feature_matcher_ros[torch]")

from superglue_checkpoint import Tensors, published_shapes, seeded_tensors  # noqa: E402

from feature_matcher_ros.errors import WeightsError  # noqa: E402
from feature_matcher_ros.models.lightglue import LightGlueModel, lightglue_from_checkpoint  # noqa: E402
from feature_matcher_ros.models.lightglue_config import LightGlueConfig  # noqa: E402
from feature_matcher_ros.models.superglue import is_superglue, superglue_from_checkpoint  # noqa: E402
from feature_matcher_ros.models.superglue_config import SuperGlueConfig  # noqa: E402

SMALL = SuperGlueConfig(width=16, encoder_widths=(6, 10), layers=2)


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return seeded_tensors(published_shapes(SMALL.width, SMALL.encoder_widths, SMALL.layers))


class Slow:
    """The network as the paper and the published tensors define it, point by point, in double precision.

    Vectors are those of a point; of a vector of channels, every fourth belongs to the same head.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = {name: tensor.double().numpy() for name, tensor in tensors.items()}

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return self._tensors[f"{name}.weight"][:, :, 0] @ x + self._tensors[f"{name}.bias"]

    def perceptron(self, name: str, x: np.ndarray) -> np.ndarray:
        step = 0
        while f"{name}.{step + 1}.running_mean" in self._tensors:
            norm = {
                part: self._tensors[f"{name}.{step + 1}.{part}"]
                for part in ("weight", "bias", "running_mean", "running_var")
            }
            x = self.linear(f"{name}.{step}", x)
            x = (x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
            x = np.where(x > 0, x, 0.0)
            step += 3
        return self.linear(f"{name}.{step}", x)

    def embed(self, descriptors: np.ndarray, positions: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
        return [
            descriptor + self.perceptron("kenc.encoder", np.array([*position, score]))
            for descriptor, position, score in zip(descriptors, positions, scores, strict=True)
        ]

    def propagate(self, layer: int, states: list[np.ndarray], sources: list[np.ndarray]) -> list[np.ndarray]:
        name = f"gnn.layers.{layer}"
        keys, values = ([self.linear(f"{name}.attn.proj.{part}", source) for source in sources] for part in (1, 2))
        result = []
        for state in states:
            query, context = self.linear(f"{name}.attn.proj.0", state), np.zeros(len(state))
            for head in range(4):
                channels = np.arange(head, len(state), 4)
                weights = [math.exp(query[channels] @ key[channels] / math.sqrt(len(channels))) for key in keys]
                for weight, value in zip(weights, values, strict=True):
                    context[channels] += weight / sum(weights) * value[channels]
            message = self.linear(f"{name}.attn.merge", context)
            result.append(state + self.perceptron(f"{name}.mlp", np.concatenate((state, message))))
        return result

    def transport(self, states0: list[np.ndarray], states1: list[np.ndarray], iterations: int) -> np.ndarray:
        """By scaling rows and columns of a matrix of exponentials: the model works with logarithms."""
        num0, num1 = len(states0), len(states1)
        kernel = np.full((num0 + 1, num1 + 1), math.exp(self._tensors["bin_score"]))
        for row, state0 in enumerate(states0):
            for column, state1 in enumerate(states1):
                product = self.linear("final_proj", state0) @ self.linear("final_proj", state1)
                kernel[row, column] = math.exp(product / math.sqrt(len(state0)))
        rows, columns = np.array([1.0] * num0 + [num1]), np.array([1.0] * num1 + [num0])
        right = np.ones(num1 + 1)
        for _ in range(iterations):
            left = rows / (kernel @ right)
            right = columns / (kernel.T @ left)
        return left[:, None] * kernel * right


def random_points(count: int, seed: int, width: int = SMALL.width) -> list[np.ndarray]:
    """Descriptors, positions and scores."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((count, width)), rng.uniform(-0.7, 0.7, (count, 2)), rng.uniform(0, 1, count)]


@pytest.mark.parametrize("counts", [(7, 5), (1, 4), (1, 1)])
def test_the_network_is_what_the_paper_says(tensors: Tensors, counts: tuple[int, int]) -> None:
    given = [random_points(count, seed) for seed, count in enumerate(counts)]
    model, slow = superglue_from_checkpoint(tensors).double(), Slow(tensors)
    states = [model.embed(*map(torch.from_numpy, parts)) for parts in given]
    expected = [slow.embed(*parts) for parts in given]
    for layer in range(SMALL.layers):
        states = list(model.layer(layer, *states))
        expected = [slow.propagate(2 * layer, part, part) for part in expected]
        expected = [
            slow.propagate(2 * layer + 1, part, other) for part, other in zip(expected, expected[::-1], strict=True)
        ]
        for found, wanted in zip(states, expected, strict=True):
            assert np.allclose(found, wanted, rtol=1e-9, atol=1e-9)
    transport = model.assignment(*states).exp().numpy()
    assert np.allclose(transport, slow.transport(*expected, SMALL.sinkhorn_iterations), rtol=1e-8, atol=1e-12)


def test_every_point_goes_somewhere(tensors: Tensors) -> None:
    """The mass of a point is 1; the dustbins take what is left, and could take all."""
    model = superglue_from_checkpoint(tensors).double()
    state0, state1 = (torch.from_numpy(random_points(count, seed=3)[0]) for count in (9, 6))
    transport = model.assignment(state0, state1).exp()
    assert np.allclose(transport.sum(dim=0), [*[1.0] * 6, 9.0], atol=1e-12)
    assert np.allclose(transport.sum(dim=1), [*[1.0] * 9, 6.0], atol=1e-6)
    assert 0.05 < transport[:-1, :-1].sum() < 5.95


def test_tensors_are_those_of_the_published_checkpoints() -> None:
    shapes = published_shapes()
    assert len(shapes) == 339
    parameters = {name: shape for name, shape in shapes.items() if "running" not in name and "tracked" not in name}
    assert sum(math.prod(shape) for shape in parameters.values()) == 12_023_297  # the paper: 12M
    tensors = {name: torch.zeros(shape).half() for name, shape in shapes.items()}
    assert is_superglue(tensors)
    model = superglue_from_checkpoint(tensors)
    assert model.config == SuperGlueConfig()
    assert not model.training
    assert {name: shape[:2] for name, shape in shapes.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }


def test_a_checkpoint_tells_the_size_of_its_network(tensors: Tensors) -> None:
    model = superglue_from_checkpoint(tensors)
    assert model.config == SMALL
    assert superglue_from_checkpoint(model.state_dict()).config == SMALL


def test_other_checkpoints_are_refused_with_a_sentence(tensors: Tensors) -> None:
    lightglue = LightGlueModel(LightGlueConfig(layers=1)).state_dict()
    assert not is_superglue(lightglue)
    with pytest.raises(WeightsError, match=r"no tensors 'kenc.encoder.0.weight'.*not one of SuperGlue"):
        superglue_from_checkpoint(lightglue)
    with pytest.raises(WeightsError, match="not one of LightGlue"):
        lightglue_from_checkpoint(tensors)
    lines = {**tensors, "lenc.encoder.0.weight": torch.ones(6, 5, 1)}  # GlueStick has points and lines
    without_layer = {name: tensor for name, tensor in tensors.items() if not name.startswith("gnn.layers.3.")}
    without_norm = {name: tensor for name, tensor in tensors.items() if not name.startswith("kenc.encoder.1.")}
    with_neighbours = {**tensors, "kenc.encoder.0.weight": torch.ones(6, 3, 3)}
    for foreign in (lines, without_layer, without_norm, with_neighbours):
        assert is_superglue(foreign)
        with pytest.raises(WeightsError, match="not one of superglue"):
            superglue_from_checkpoint(foreign)
