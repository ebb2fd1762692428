from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="this runtime needs torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.errors import RuntimeLoadError  # noqa: E402
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec  # noqa: E402
from feature_matcher_ros.runtimes.torch_runtime import DeviceTensor, TorchRuntime  # noqa: E402

SPEC = GraphSpec((TensorSpec("x", ("n",), "float32"),), (TensorSpec("y", ("n",), "float32"),))


class Double(torch.nn.Module):
    def forward(self, tensors):
        return {"y": 2 * tensors["x"], "unwanted": tensors["x"]}


def test_tensors_go_in_and_out_by_name_and_stay_where_they_are() -> None:
    runtime = TorchRuntime(Double(), SPEC)
    once = runtime.run({"x": np.arange(4, dtype=np.float32)[::2]})
    assert set(once) == {"y"}
    assert isinstance(once["y"], DeviceTensor)
    again = runtime.run({"x": once["y"]})
    assert np.asarray(again["y"]).tolist() == [0.0, 8.0]
    assert np.asarray(again["y"], dtype=np.float64).dtype == np.float64
    assert (runtime.name, runtime.spec) == ("torch", SPEC)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(RuntimeLoadError, match="cannot use the device 'warp'"):
        TorchRuntime(Double(), SPEC, device="warp")
    if not torch.cuda.is_available():
        linear = torch.nn.Linear(1, 1)  # a module without weights goes anywhere
        with pytest.raises(RuntimeLoadError, match=r"cannot use the device 'cuda'.*choose cpu"):
            TorchRuntime(linear, SPEC, device="cuda")


class Product(torch.nn.Module):
    """Says in which type it multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 2**-10]]))
        self.seen = None

    def forward(self, tensors):
        product = tensors["x"].reshape(-1, 2) @ self.weight.T
        self.seen = product.dtype
        return {"y": product.flatten()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_products_are_computed_in_the_wanted_precision(precision: str) -> None:
    product = Product()
    found = np.asarray(TorchRuntime(product, SPEC, precision=precision).run({"x": np.ones(4, np.float32)})["y"])
    assert product.seen is getattr(torch, precision)
    assert found.dtype == np.float32
    assert found.tolist() == [1.0 if precision == "bfloat16" else 1.0 + 2**-10] * 2  # 8 bits do not hold the sum
    with pytest.raises(RuntimeLoadError, match="the precision 'int4' is unknown: choose float32, float16, bfloat16"):
        TorchRuntime(product, SPEC, precision="int4")
