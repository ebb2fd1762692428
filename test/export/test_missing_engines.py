"""A node builds the engines that it lacks before it opens its networks, and only those."""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="engines are built from graphs with onnx: pip install onnx")

from gpu_machine import Machine, gpu_machine  # noqa: E402

from feature_matcher_ros.config import FrontEndConfig, override  # noqa: E402
from feature_matcher_ros.errors import ConfigError, RuntimeLoadError  # noqa: E402
from feature_matcher_ros.export.missing_engines import build_missing_engines  # noqa: E402
from feature_matcher_ros.export.to_tensorrt import EngineOptions, build_network, precisions_of  # noqa: E402
from feature_matcher_ros.runtimes import open_runtime  # noqa: E402
from feature_matcher_ros.runtimes.manifest import read_manifest  # noqa: E402
from feature_matcher_ros.runtimes.tensorrt_library import driver_problem, load_tensorrt  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "engines" / "lightglue_sift"
MANIFEST = read_manifest(SHIPPED)
WANTED = override(FrontEndConfig(), {"matcher.name": "lightglue", "matcher.runtime": "tensorrt"})
FLAVOURS = [("tensorrt_rtx", "1.7.1"), ("tensorrt", "10.0.1"), ("tensorrt", "11.4.1")]


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    library, version = getattr(request, "param", FLAVOURS[0])
    with gpu_machine(monkeypatch, tmp_path, library, version) as found:
        yield found


def newest(machine: Machine, name: str) -> Path:
    """The engine of a graph that is used."""
    found = machine.cache.manifests(MANIFEST.graphs[name].sha256)
    key = max(found, key=lambda manifest: manifest.chosen_at).key
    return next(machine.cache.folder.rglob(f"{key[:16]}.engine"))


def built(machine: Machine) -> dict[str, Path]:
    return {name: newest(machine, name) for name in MANIFEST.graphs}


@pytest.mark.parametrize("machine", FLAVOURS, indirect=True)
def test_both_flavours_build_what_they_then_execute(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    steps: list[tuple[str, float]] = []
    with caplog.at_level(logging.WARNING):
        build_missing_engines(WANTED, on_progress=lambda *step: steps.append(step))
    assert "builds 13 engines of" in caplog.text and "nobody compared float16 with float32" in caplog.text
    assert [share for _, share in steps] == sorted(share for _, share in steps) and steps[-1][1] == 1.0
    assert {name for name, _ in steps} == set(MANIFEST.graphs)
    rows = np.arange(40, dtype=np.int32)
    generator = np.random.default_rng(0)
    given = {name: generator.uniform(-1, 1, (40, width)).astype(np.float32)
             for name, width in (("state", 128), ("cosines", 16), ("sines", 16))}  # fmt: skip
    given |= {"rows0": rows[:25], "rows1": rows[25:]}
    path, spec = SHIPPED / "stage1.onnx", MANIFEST.graphs["stage1"].spec
    expected, found = (open_runtime(path, spec, name).run(given) for name in ("onnx", "tensorrt"))
    assert open_runtime(path, spec, "tensorrt").precision == "float16"
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(found[name]), value, atol=0.05)
    assert not np.array_equal(np.asarray(found["next_state"]), expected["next_state"]), "it is in half precision"
    assert (machine.cache.folder / "timings.cache").is_file() == ("tensorrt_rtx" not in caplog.text)
    before = built(machine)
    build_missing_engines(WANTED, on_progress=lambda *step: pytest.fail("nothing is missing"))
    assert built(machine) == before


@pytest.mark.parametrize("harm", ["truncated", "tampered", "missing", "foreign", "stale"])
def test_what_cannot_be_used_is_built_again_as_it_was_and_nothing_else(
    machine: Machine, harm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the precision that an acceptance test has chosen, unlike the one that is built by default."""
    precisions = {**precisions_of(MANIFEST, "float16"), "stage3": "float32"}
    build_network(SHIPPED, EngineOptions(architectures=("8.9",)), precisions)
    before = built(machine)
    path = before["stage3"]
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm in ("truncated", "tampered"):
        path.write_bytes(content[:-5] if harm == "truncated" else content[:-5] + b"-----")
    else:
        changed = {"foreign": {"architectures": ("12.0",)}, "stale": {"version": "1.6.0"}}[harm]
        manifest = next(iter(machine.cache.manifests(MANIFEST.graphs["stage3"].sha256)))
        source = replace(manifest.source, environment=replace(manifest.source.environment, **changed))
        shutil.rmtree(path.parent)
        machine.cache.store(replace(manifest, source=source, key=source.key), content)
    with caplog.at_level(logging.WARNING):
        build_missing_engines(WANTED)
    assert "builds 1 engines of" in caplog.text and machine.opened == []
    after = built(machine)
    assert {name for name in before if after[name].stat().st_mtime_ns != path_time(before[name])} <= {"stage3"}
    assert after["stage3"].read_bytes() == content
    runtime = open_runtime(SHIPPED / "stage3.onnx", MANIFEST.graphs["stage3"].spec, "tensorrt")
    assert runtime.precision == "float32"


def path_time(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def test_an_engine_in_a_folder_of_others_is_refused_with_the_command(machine: Machine) -> None:
    build_missing_engines(WANTED)
    folder = newest(machine, "stage3").parent
    folder.chmod(0o777)
    with pytest.raises(RuntimeLoadError, match=rf"run chmod -R go-w {folder.parent}, then build the engines again"):
        build_missing_engines(WANTED)


def test_a_gpu_for_which_nothing_can_be_built_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (
        gpu_machine(monkeypatch, tmp_path, capability=(9, 0)),
        pytest.raises(ConfigError, match=r"tensorrt_rtx 1\.7\.1 does not build for compute capability 9\.0: it builds"),
    ):
        build_missing_engines(WANTED)


@pytest.mark.parametrize(
    "settings",
    [
        {"matcher.name": "lightglue"},
        {"matcher.name": "lightglue", "matcher.runtime": "onnx"},
        {"matcher.name": "mutual_nearest", "matcher.runtime": "tensorrt"},
        {"matcher.name": "mutual_nearest", "extractor.runtime": "tensorrt"},
    ],
)
def test_nothing_is_built_that_was_not_asked_for(machine: Machine, settings: dict[str, str]) -> None:
    build_missing_engines(override(FrontEndConfig(), settings), on_progress=lambda *step: pytest.fail("it builds"))
    assert not machine.cache.folder.exists()


def test_a_damaged_timing_cache_is_begun_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As is one of another version; ``tensorrt`` says so of the former with None, of the latter with False."""
    with gpu_machine(monkeypatch, tmp_path, "tensorrt", "10.0.1") as machine:
        for content in (b"\0\0damaged", b"timings of tensorrt 9"):
            machine.cache.folder.mkdir(parents=True, exist_ok=True)
            path = machine.cache.folder / "timings.cache"
            path.write_bytes(content)
            build_network(SHIPPED, EngineOptions(rebuild=True), precisions_of(MANIFEST, "float16"))
            assert path.read_bytes() == b"timings of tensorrt 10.0.1"


def test_an_engine_of_one_flavour_is_none_of_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for library, version in FLAVOURS:
        with gpu_machine(monkeypatch, tmp_path, library, version) as machine:
            with pytest.raises(RuntimeLoadError, match=rf"there is no engine for {library} {version}"):
                open_runtime(SHIPPED / "stage1.onnx", MANIFEST.graphs["stage1"].spec, "tensorrt")
            build_missing_engines(WANTED)
            assert open_runtime(SHIPPED / "stage1.onnx", MANIFEST.graphs["stage1"].spec, "tensorrt").name == "tensorrt"
            assert len(machine.opened) == 1


@pytest.mark.skipif(driver_problem() is None, reason="there is a GPU, whose driver the real library would use")
def test_the_real_library_builds_what_is_harmed_up_to_its_opening(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For the GPU that the fake of the driver has; opening it is what takes a real one."""
    real = pytest.importorskip("tensorrt_rtx", reason="engines are built with tensorrt-rtx")
    with gpu_machine(monkeypatch, tmp_path, version=real.__version__) as machine:
        build_missing_engines(WANTED)
        harmed = newest(machine, "head1")
        harmed.write_bytes(b"tampered")
        others = {name: path.read_bytes() for name, path in built(machine).items() if name != "head1"}
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", real)
        load_tensorrt.cache_clear()
        steps: list[str] = []
        build_missing_engines(WANTED, on_progress=lambda name, share: steps.append(name))
        assert set(steps) == {"head1"} and len(steps) > 3
        assert {name: path.read_bytes() for name, path in built(machine).items() if name != "head1"} == others
        assert newest(machine, "head1").stat().st_size > 100_000
        with pytest.raises(RuntimeLoadError, match=r"cannot open the engine of 'head1' \(.*set the runtime to onnx"):
            open_runtime(SHIPPED / "head1.onnx", MANIFEST.graphs["head1"].spec, "tensorrt")
