"""The torch model against arithmetic written out with loops, and the reading of checkpoints."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the models need torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.errors import WeightsError  # noqa: E402
from feature_matcher_ros.models.lightglue import LightGlueModel, lightglue_from_checkpoint  # noqa: E402
from feature_matcher_ros.models.lightglue_config import LightGlueConfig  # noqa: E402

CONFIG = LightGlueConfig(descriptor_size=6, width=8, heads=2, layers=3)


@pytest.fixture(scope="module")
def model() -> LightGlueModel:
    torch.manual_seed(0)
    return LightGlueModel(CONFIG).double().eval().requires_grad_(False)


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(shape[0]).standard_normal(shape))


def linear(module: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return module.weight.numpy() @ x + module.bias.numpy()


def update(module: torch.nn.Sequential, state: np.ndarray, message: np.ndarray) -> np.ndarray:
    hidden = linear(module[0], np.concatenate((state, message)))
    hidden = (hidden - hidden.mean()) / math.sqrt(hidden.var() + 1e-5) * module[1].weight.numpy() + module[
        1
    ].bias.numpy()
    hidden = np.array([0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in hidden])
    return state + linear(module[3], hidden)


def attend(query: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray]) -> np.ndarray:
    weights = np.exp([query @ key / math.sqrt(len(query)) for key in keys])
    return sum(w * v for w, v in zip(weights / weights.sum(), values, strict=True))


def turned(vector: np.ndarray, angles: np.ndarray) -> np.ndarray:
    pairs = [complex(*vector[2 * k : 2 * k + 2]) * np.exp(1j * angle) for k, angle in enumerate(angles)]
    return np.array([part for z in pairs for part in (z.real, z.imag)])


def slow_self_attention(module: torch.nn.Module, states: np.ndarray, angles: np.ndarray) -> np.ndarray:
    packed = [linear(module.Wqkv, state).reshape(CONFIG.heads, CONFIG.head_size, 3) for state in states]
    result = []
    for i, state in enumerate(states):
        context = []
        for head in range(CONFIG.heads):
            keys = [turned(p[head, :, 1], angle) for p, angle in zip(packed, angles, strict=True)]
            context.append(attend(turned(packed[i][head, :, 0], angles[i]), keys, [p[head, :, 2] for p in packed]))
        result.append(update(module.ffn, state, linear(module.out_proj, np.concatenate(context))))
    return np.array(result)


def slow_cross_attention(module: torch.nn.Module, states: np.ndarray, others: np.ndarray) -> np.ndarray:
    result = []
    for state in states:
        query = np.split(linear(module.to_qk, state), CONFIG.heads)
        keys = [np.split(linear(module.to_qk, other), CONFIG.heads) for other in others]
        values = [np.split(linear(module.to_v, other), CONFIG.heads) for other in others]
        context = [
            attend(query[head], [key[head] for key in keys], [value[head] for value in values])
            for head in range(CONFIG.heads)
        ]
        result.append(update(module.ffn, state, linear(module.to_out, np.concatenate(context))))
    return np.array(result)


def test_a_layer_is_what_the_paper_says(model: LightGlueModel) -> None:
    state0, state1, positions0, positions1 = random(5, 8), random(4, 8), random(5, 2), random(4, 2)
    _, rotation0 = model.embed(random(5, 6), positions0)
    _, rotation1 = model.embed(random(4, 6), positions1)
    found0, found1 = model.layer(1, state0, state1, rotation0, rotation1)
    layer, frequencies = model.transformers[1], model.posenc.Wr.weight.numpy()
    refined = [
        slow_self_attention(layer.self_attn, state.numpy(), positions.numpy() @ frequencies.T)
        for state, positions in ((state0, positions0), (state1, positions1))
    ]
    assert np.allclose(found0, slow_cross_attention(layer.cross_attn, refined[0], refined[1]), atol=1e-10)
    assert np.allclose(found1, slow_cross_attention(layer.cross_attn, refined[1], refined[0]), atol=1e-10)


def test_only_relative_positions_matter(model: LightGlueModel) -> None:
    descriptors0, descriptors1, positions0, positions1 = random(5, 6), random(4, 6), random(5, 2), random(4, 2)
    here = model(descriptors0, descriptors1, positions0, positions1)
    there = model(descriptors0, descriptors1, positions0 + torch.tensor([0.3, -2.0]), positions1)
    assert torch.allclose(here, there, atol=1e-12)
    assert not torch.allclose(here, model(descriptors0, descriptors1, 2 * positions0, positions1), atol=1e-6)


def test_the_assignment_is_a_double_softmax_with_dustbins(model: LightGlueModel) -> None:
    state0, state1 = random(5, 8), random(4, 8)
    found = model.assignment(2, state0, state1).exp().numpy()
    head = model.log_assignment["2"]
    vectors = [np.array([linear(head.final_proj, state) for state in states.numpy()]) for states in (state0, state1)]
    similarity = np.exp(vectors[0] @ vectors[1].T / math.sqrt(8))
    sigma0, sigma1 = (model.matchability(2, states).numpy() for states in (state0, state1))
    expected = similarity**2 / similarity.sum(0) / similarity.sum(1, keepdims=True) * np.outer(sigma0, sigma1)
    assert np.allclose(found[:-1, :-1], expected, atol=1e-12)
    assert np.allclose(found[:-1, -1], 1 - sigma0)
    assert np.allclose(found[-1, :-1], 1 - sigma1)


def test_a_batch_is_its_pairs_one_by_one(model: LightGlueModel) -> None:
    given = random(3, 5, 6), random(3, 4, 6), random(3, 5, 2), random(3, 4, 2)
    together = model(*given)
    for pair in range(3):
        assert torch.allclose(together[pair], model(*(part[pair] for part in given)), atol=1e-12)


@pytest.mark.parametrize(
    "config",
    [CONFIG, LightGlueConfig(8, 8, 1, 2, scale_orientation=True), LightGlueConfig(4, 8, 2, 3, adaptive=False)],
)
def test_a_checkpoint_tells_the_size_of_its_network(config: LightGlueConfig) -> None:
    model = LightGlueModel(config).eval()
    loaded = lightglue_from_checkpoint(model.state_dict())
    assert loaded.config == config
    given = random(5, config.descriptor_size), random(4, config.descriptor_size)
    given += random(5, config.position_size), random(4, config.position_size)
    given = tuple(part.float() for part in given)
    assert torch.equal(loaded(*given), model(*given))


def test_older_names_and_unused_tensors_are_understood() -> None:
    tensors = LightGlueModel(CONFIG).state_dict()
    published = {name: tensor.half() for name, tensor in tensors.items()}
    older = {
        name.replace(f"transformers.{layer}.{part}", f"{part}.{layer}"): published[name]
        for name in published
        for layer in [name.split(".")[1] if name.startswith("transformers") else ""]
        for part in [name.split(".")[2] if name.startswith("transformers") else ""]
    }
    assert "self_attn.0.Wqkv.weight" in older
    older |= {"confidence_thresholds": torch.ones(3), "log_assignment.1.r": torch.ones(1), "extractor.x": torch.ones(1)}
    loaded = lightglue_from_checkpoint({f"matcher.{n}" if n.startswith("self") else n: t for n, t in older.items()})
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, published[name].float())


def test_other_checkpoints_are_refused_with_a_sentence() -> None:
    tensors = LightGlueModel(CONFIG).state_dict()
    with pytest.raises(WeightsError, match=r"no tensor 'posenc.Wr.weight'.*LightGlue"):
        lightglue_from_checkpoint({"conv1a.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match="not one of LightGlue"):
        lightglue_from_checkpoint({n: t for n, t in tensors.items() if n != "log_assignment.1.matchability.bias"})
    with pytest.raises(WeightsError, match="not one of LightGlue"):
        lightglue_from_checkpoint({**tensors, "transformers.1.self_attn.Wqkv.bias": torch.ones(5)})
