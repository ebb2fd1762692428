"""Networks on the GPU, without one: the library and the driver are replaced by ones that enforce the real rules."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from fake_tensorrt import (
    FakeBuilder,
    FakeCache,
    FakeConfig,
    FakeContext,
    FakeEngine,
    FakeRtxBuilderConfig,
    Gpu,
    engine_bytes,
    fake_library,
)
from gpu_machine import Machine, gpu_machine
from stored_engines import BUILT_FOR, LARGE, MANIFEST, SHIPPED, SMALL, features, profiles_of, stage_inputs, store

from feature_matcher_ros import runtimes
from feature_matcher_ros.cli import main
from feature_matcher_ros.errors import MatcherError, RuntimeLoadError
from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.runtimes import open_runtime, own_files, tensorrt_device, tensorrt_library
from feature_matcher_ros.runtimes.tensorrt_device import CudaDevice, DeviceBuffer, DeviceTensor
from feature_matcher_ros.runtimes.tensorrt_library import driver_problem, load_tensorrt, require_driver
from feature_matcher_ros.runtimes.tensorrt_runtime import TensorRtRuntime


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    with gpu_machine(monkeypatch, tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    "rules",
    [
        LightGlueRules(StopRule(None), PruneRule(None)),
        LightGlueRules(StopRule(None), PruneRule(0.5)),
        LightGlueRules(StopRule(0.3), PruneRule(0.9), thresholds=(0.5,) * 6),
    ],
)
def test_a_pair_goes_through_as_on_the_cpu_and_stays_on_the_gpu(machine: Machine, rules: LightGlueRules) -> None:
    for name in MANIFEST.graphs:
        store(machine.cache, name)
    by_onnx, by_tensorrt = (
        LightGlue(SimpleNamespace(name="none"), open_lightglue(SHIPPED, name, 1), rules)
        for name in ("onnx", "tensorrt")
    )
    num_allocated = []
    for points0, points1 in ((200, 230), (60, 40), (300, 300), (200, 230)):
        pair = features(points0, 1), features(points1, 2)
        before = machine.gpu.num_downloaded
        expected, found = by_onnx.match(*pair), by_tensorrt.match(*pair)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.points_per_stage, expected.points_per_stage)
        assert (found.layers_run, found.stop_reason) == (expected.layers_run, expected.stop_reason)
        # Two probabilities a point and stage, and partner and two likelihoods at the end: nothing else comes back.
        decisions = 8 * int(expected.points_per_stage.sum()) + 16 * (points0 + points1)
        assert 0 < machine.gpu.num_downloaded - before <= decisions
        num_allocated.append(len(machine.gpu.memory))
    assert len(expected) > 20
    if rules.prune.width_confidence:
        assert expected.points_per_stage[-1].sum() < expected.points_per_stage[0].sum() or expected.layers_run < 6
    assert num_allocated[-1] == num_allocated[0], "what became too small is freed"


def test_the_smallest_profile_that_fits_is_taken(machine: Machine) -> None:
    store(machine.cache, "stage2")
    runtime = open_runtime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec, "tensorrt")
    context: FakeContext = runtime._context
    for size in (10, SMALL, SMALL + 1, LARGE, 20):
        runtime.run(stage_inputs(size, 5))
    assert context.profiles_chosen == [1, 0]  # it begins with the small one
    with pytest.raises(MatcherError, match=r"takes state \(600, 128\), .*given .*rows0 \(301,\).*--keypoints"):
        runtime.run(stage_inputs(LARGE + 1, 5))
    assert np.isfinite(np.asarray(runtime.run(stage_inputs(20, 5))["certainty"])).all()


def test_a_tensor_is_good_as_long_as_it_is_held_and_its_memory_is_used_again(machine: Machine) -> None:
    store(machine.cache, "stage2")
    runtime = TensorRtRuntime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec, cache=machine.cache)
    first = runtime.run(stage_inputs(30, 20))["next_state"]
    assert isinstance(first, DeviceTensor) and first.shape == (50, 128) and len(first) == 50
    other = runtime.run(stage_inputs(20, 30))["next_state"]
    assert other.address != first.address
    kept = np.asarray(first)
    assert not np.array_equal(kept, np.asarray(other))
    num_allocated, address = len(machine.gpu.memory), first.address
    del first
    again = runtime.run(stage_inputs(30, 20))["next_state"]
    assert again.address == address and len(machine.gpu.memory) == num_allocated
    np.testing.assert_array_equal(np.asarray(again), kept)
    np.testing.assert_array_equal(np.asarray(again, dtype=np.float64), kept)


def test_a_full_gpu_is_one_sentence(machine: Machine) -> None:
    store(machine.cache, "stage2")
    runtime = TensorRtRuntime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec, cache=machine.cache)
    machine.gpu.capacity = 1 << 18
    with pytest.raises(MatcherError, match=r"the GPU has no 0 MB left .*: lower max_keypoints"):
        runtime.run(stage_inputs(200, 200))


def test_memory_that_was_refused_may_be_asked_for_again(machine: Machine) -> None:
    device = CudaDevice()
    with device.active():
        buffer = DeviceBuffer(device)
        buffer.refill(1 << 16)
        machine.gpu.capacity = 1 << 18
        with pytest.raises(MatcherError, match="the GPU has no 1 MB left"):
            buffer.refill(1 << 20)
        address = buffer.refill(1 << 17)
        assert len(machine.gpu.memory[address]) == 1 << 17


def test_an_engine_of_another_graph_is_refused(machine: Machine) -> None:
    entry = MANIFEST.graphs["head2"]
    store(
        machine.cache,
        "stage2",
        content=engine_bytes(str(SHIPPED / entry.file), entry.spec, profiles_of("head2", SMALL)),
    )
    with pytest.raises(RuntimeLoadError, match="does not have the input 'cosines'"):
        TensorRtRuntime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec)


def test_what_cannot_be_opened_is_said_with_the_command_that_builds_it(machine: Machine) -> None:
    path, spec = SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec
    remedy = rf"run feature-matcher build {SHIPPED}, or set the runtime to onnx, which needs no GPU\.$"
    with pytest.raises(RuntimeLoadError, match=r"there is no engine for tensorrt_rtx 1\.7\.1 .* 8\.9; " + remedy):
        open_runtime(path, spec, "tensorrt")
    store(machine.cache, "stage2", replace(BUILT_FOR, architectures=("12.0",)))
    with pytest.raises(RuntimeLoadError, match=r"only for .*compute capability 12\.0 in float16; " + remedy):
        open_runtime(path, spec, "tensorrt")
    store(machine.cache, "stage2", content=b"of an older driver")
    with pytest.raises(RuntimeLoadError, match=r"cannot open the engine of 'stage2' \(.*Error Code 35.*build it again"):
        open_runtime(path, spec, "tensorrt")
    store(machine.cache, "stage2").write_bytes(b"[tampered")
    with pytest.raises(RuntimeLoadError, match=r"are not those that were built .*; " + remedy):
        open_runtime(path, spec, "tensorrt")
    assert machine.opened == [], "the library saw none of it"


def test_auto_falls_back_with_one_warning_and_a_choice_never(
    machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, spec = SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec
    head, head_spec = SHIPPED / "head2.onnx", MANIFEST.graphs["head2"].spec
    with caplog.at_level(logging.INFO):
        assert [open_runtime(path, spec).name for _ in range(3)] == ["onnx"] * 3
        assert open_runtime(head, head_spec).name == "onnx", "of the same network, for the same reason"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (
        "lightglue_sift runs by ONNX Runtime on the CPU, for what is faster cannot be used: stage2.onnx" in caplog.text
    )
    store(machine.cache, "stage2")
    assert open_runtime(path, spec).name == "tensorrt"
    assert open_runtime(path, spec, "onnx").name == "onnx"
    states = open_runtime(path, spec).run(stage_inputs(9, 7))  # and what one gives, the other takes
    given = {**stage_inputs(9, 7), "state": states["next_state"]}
    assert open_runtime(path, spec, "onnx").run(given)["next_state"].shape == (16, 128)


@pytest.mark.parametrize("is_installed", [True, False])
def test_without_a_gpu_auto_warns_only_where_tensorrt_was_installed(
    is_installed: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_library, "driver_problem", lambda: "there is no NVIDIA driver on this machine")
    monkeypatch.setattr(runtimes, "_is_tensorrt_installed", lambda: is_installed)
    runtimes._is_torch_on_gpu_expected.cache_clear()
    monkeypatch.setattr(runtimes, "_warned", set())
    with caplog.at_level(logging.INFO):
        for name in ("stage2", "head2"):
            assert open_runtime(SHIPPED / f"{name}.onnx", MANIFEST.graphs[name].spec).name == "onnx"
    assert [record.levelname for record in caplog.records] == ["WARNING"] * is_installed
    assert not is_installed or "there is no NVIDIA driver" in caplog.text


def test_whether_tensorrt_is_installed_is_found_out_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for answer in (None, object()):
        runtimes._is_tensorrt_installed.cache_clear()
        monkeypatch.setattr(runtimes, "find_spec", lambda name, answer=answer: asked.append(name) or answer)
        assert runtimes._is_tensorrt_installed() == (answer is not None)
    runtimes._is_tensorrt_installed.cache_clear()
    assert asked == ["tensorrt", "tensorrt_rtx", "tensorrt"]


def test_numbers_of_points_get_no_kernels_of_their_own(machine: Machine) -> None:
    store(machine.cache, "stage2")
    TensorRtRuntime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec)
    (config,) = machine.opened[0].configs
    assert (config.dynamic_shapes_kernel_specialization_strategy, config.cuda_graph_strategy) == ("none", "disabled")


def opened_stage(machine: Machine) -> TensorRtRuntime:
    return TensorRtRuntime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec, cache=machine.cache)


def kernel_files(machine: Machine) -> list[Path]:
    return sorted(machine.cache.folder.rglob("*.kernels"))


def test_kernels_are_compiled_once_for_an_engine_and_a_gpu(machine: Machine) -> None:
    store(machine.cache, "stage2")
    runtime = opened_stage(machine)
    assert machine.gpu.num_compiled == 1, "before anybody waits for a result"
    (path,) = kernel_files(machine)
    expected = np.asarray(runtime.run(stage_inputs(9, 7))["certainty"])
    assert path.stat().st_mode & 0o077 == 0
    found = np.asarray(opened_stage(machine).run(stage_inputs(9, 7))["certainty"])
    assert machine.gpu.num_compiled == 1
    np.testing.assert_array_equal(found, expected)
    machine.gpu.name = "another"
    opened_stage(machine).run(stage_inputs(9, 7))
    assert machine.gpu.num_compiled == 2 and len(kernel_files(machine)) == 2


@pytest.mark.parametrize("harm", ["truncated", "changed", "writable by others"])
def test_kernels_that_are_harmed_are_compiled_again(
    machine: Machine, harm: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store(machine.cache, "stage2")
    opened_stage(machine).run(stage_inputs(9, 7))
    (path,) = kernel_files(machine)
    good = path.read_bytes()
    if harm == "writable by others":
        path.chmod(0o602)
    else:
        path.write_bytes(good[:-1] if harm == "truncated" else good[:-1] + b"!")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(FakeCache, "deserialize", lambda self, blob: pytest.fail("the library saw it"))
        opened_stage(machine).run(stage_inputs(9, 7))
    assert machine.gpu.num_compiled == 2 and "kernels are compiled again" in caplog.text
    assert path.read_bytes() == good and path.stat().st_mode & 0o077 == 0


def test_kernels_of_another_driver_are_replaced_and_later_ones_are_kept_at_the_end(machine: Machine) -> None:
    store(machine.cache, "stage2")
    opened_stage(machine).run(stage_inputs(9, 7))
    (path,) = kernel_files(machine)
    stale = b'["of an older driver", []]'
    path.write_bytes(hashlib.sha256(stale).digest() + stale)
    runtime = opened_stage(machine)
    assert machine.gpu.num_compiled == 2 and b"older driver" not in path.read_bytes()
    runtime._context._config.compile("specialised")  # in the background, when it gets to it
    del runtime
    assert b"specialised" in path.read_bytes()


def test_an_engine_that_cannot_be_run_is_found_out_when_it_is_opened(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(machine.cache, "stage2")
    monkeypatch.setattr(FakeContext, "execute_async_v3", lambda self, stream: False)
    with pytest.raises(RuntimeLoadError, match="TensorRT cannot run the graph 'stage2'"):
        opened_stage(machine)
    assert open_runtime(SHIPPED / "stage2.onnx", MANIFEST.graphs["stage2"].spec).name == "onnx"


def test_a_folder_that_cannot_be_written_costs_time_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store(machine.cache, "stage2")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(own_files.os, "fsync", full)
        opened_stage(machine).run(stage_inputs(9, 7))
    assert "compiled kernels are not kept: cannot write" in caplog.text and kernel_files(machine) == []


def test_a_missing_pycuda_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_device, "require_driver", lambda: None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(RuntimeLoadError, match=r"pycuda cannot be imported .*CUDA toolkit.*pip install pycuda, or set"):
        CudaDevice()


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    load_tensorrt.cache_clear()
    with pytest.raises(RuntimeLoadError, match=r"TensorRT cannot be imported .*: run pip install tensorrt-rtx, or set"):
        load_tensorrt()
    load_tensorrt.cache_clear()


@pytest.mark.parametrize(
    ("init", "count", "said"),
    [
        (0, 1, None),
        (0, 0, "the NVIDIA driver finds no GPU"),
        (999, 0, r"the NVIDIA driver does not answer \(CUDA error 999\)"),
        (None, 0, r"there is no NVIDIA driver on this machine \(libcuda\.so\.1 is missing\)"),
    ],
)
def test_what_the_driver_lacks_is_named(
    init: int | None, count: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def library(name: str) -> Any:
        if init is None:
            raise OSError(f"{name}: cannot open shared object file")

        def get_count(pointer: Any) -> int:
            pointer._obj.value = count
            return 0

        return SimpleNamespace(cuInit=lambda flags: init, cuDeviceGetCount=get_count)

    monkeypatch.setattr(ctypes, "CDLL", library)
    if said is None:
        require_driver()
    else:
        with pytest.raises(RuntimeLoadError, match=said + r".*: install NVIDIA's driver .*set the runtime to onnx"):
            require_driver()


@pytest.mark.skipif(driver_problem() is None, reason="there is a GPU")
def test_without_a_gpu_the_choice_of_tensorrt_ends_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(tmp_path / "image.png")
    cv2.imwrite(image, np.zeros((64, 64), np.uint8))
    settings = ["--set", "matcher.name=lightglue", "--set", "matcher.runtime=tensorrt"]
    monkeypatch.setattr(sys, "argv", ["feature-matcher", "match", image, image, *settings])
    with pytest.raises(SystemExit) as stop:
        main()
    err = capsys.readouterr().err
    assert stop.value.code == 1 and err.count("\n") == 1
    assert "driver" in err and "set the runtime to onnx" in err


def test_the_fakes_have_nothing_that_the_real_library_has_not() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="its wheel says what there is: pip install tensorrt-rtx")
    gpu = Gpu()
    library = fake_library(gpu, [])
    for fake, real in (
        (FakeEngine, trt.ICudaEngine),
        (FakeContext, trt.IExecutionContext),
        (FakeCache, trt.IRuntimeCache),
        (FakeConfig, trt.IRuntimeConfig),
        (FakeBuilder, trt.Builder),
        (FakeRtxBuilderConfig, trt.IBuilderConfig),
        (library.Runtime, trt.Runtime),
        (library.OnnxParser, trt.OnnxParser),
    ):
        for name in (name for name in vars(fake) if not name.startswith("_") and callable(getattr(fake, name))):
            if (fake.__name__, name) in OWN:
                continue
            described = getattr(real, name).__doc__ or ""
            taken = getattr(fake, name).__code__.co_varnames[1 : getattr(fake, name).__code__.co_argcount]
            missing = [word for word in taken if f"{word}:" not in described and word != "config"]
            assert missing == [], f"{name} takes no {missing}"
    for name in FakeRtxBuilderConfig._allowed:
        assert hasattr(trt.IBuilderConfig, name)
    assert type(vars(FakeContext)["device_memory"]) is type(vars(trt.IExecutionContext)["device_memory"])
    assert hasattr(trt.ExecutionContextAllocationStrategy, "USER_MANAGED")
    for name in ("dynamic_shapes_kernel_specialization_strategy", "cuda_graph_strategy"):
        assert hasattr(trt.IRuntimeConfig, name) and hasattr(FakeConfig(gpu), name)
    for enumeration in ("TensorIOMode", "DynamicShapesKernelSpecializationStrategy", "CudaGraphStrategy"):
        assert set(vars(getattr(library, enumeration))) <= set(getattr(trt, enumeration).__members__)
    for enumeration in ("BuilderFlag", "ComputeCapability"):
        assert set(getattr(library, enumeration).__members__) <= set(getattr(trt, enumeration).__members__)
    assert set(vars(library.ILogger.Severity)) == set(trt.ILogger.Severity.__members__)
    assert np.dtype(trt.nptype(trt.DataType.INT64)).name == "int64"


OWN = {
    ("FakeEngine", "output_shapes"),
    ("FakeContext", "output_shapes"),
    ("FakeConfig", "compile"),
    ("FakeBuilder", "config_class"),
}
