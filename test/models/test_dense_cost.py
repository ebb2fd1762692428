"""The counted cost of detector-free networks against what torch counts while they run."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch: pip install feature_matcher_ros[torch]")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from feature_matcher_ros.models.dense_config import EfficientLoftrConfig, LoftrConfig  # noqa: E402
from feature_matcher_ros.models.dense_cost import dense_cost  # noqa: E402
from feature_matcher_ros.models.dense_network import CellPairs  # noqa: E402
from feature_matcher_ros.models.efficient_loftr import EfficientLoftr  # noqa: E402
from feature_matcher_ros.models.loftr import Loftr  # noqa: E402

EFFICIENT = EfficientLoftrConfig(widths=(16, 24, 32), blocks=(2, 3, 4), heads=2, rounds=3)
LOFTR = LoftrConfig(widths=(16, 24, 32), heads=2, fine_heads=4, rounds=3)


@pytest.mark.parametrize(("config", "method"), [(EFFICIENT, EfficientLoftr), (LOFTR, Loftr)])
def test_products_are_those_that_torch_runs(config, method) -> None:
    """All of them, but those of two matrices of weights in each layer, which the export does once and for all."""
    network = method(config).eval()
    if isinstance(network, EfficientLoftr):
        network.merge()
    size, num_matches = (192, 128), 11
    image, cells = torch.rand(1, 1, 128, 192), torch.ones(1, 1, 16, 24)
    numbers = torch.arange(num_matches)
    pairs = CellPairs(torch.zeros_like(numbers), numbers, numbers)

    def counted(run, *arguments):
        with FlopCounterMode(display=False) as counter:
            found = run(*arguments)
        return found, counter.get_total_flops() // 2

    with torch.no_grad():
        encoded, backbone = counted(network.encode, image, cells)
        states, rounds = (encoded["state"], encoded["state"]), 0
        for number in range(2):
            states, products = counted(network.round, number, *states, cells, cells)
            rounds += products
        _, coarse = counted(network.logits, *states, cells, cells)
        _, fine = counted(network.refine, (encoded, encoded), states, pairs)
    cost = dense_cost(config, size, 2, num_matches)
    folded = 2 * config.width**3 if method is EfficientLoftr else 0  # of a layer
    expected = (backbone - folded, rounds - 6 * folded, coarse, fine)
    assert (cost.backbone, cost.rounds, cost.coarse, cost.fine) == expected
    assert cost.tokens == (24 if method is EfficientLoftr else 384)
    assert dense_cost(config, size, 0, 0).rounds == 0
