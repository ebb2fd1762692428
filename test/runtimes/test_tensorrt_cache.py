"""The cache of engines: which one is used, and everything that must not reach the library."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from feature_matcher_ros.errors import OutputError, RuntimeLoadError
from feature_matcher_ros.runtimes import own_files
from feature_matcher_ros.runtimes.engine_cache import EngineCache, default_engine_folder
from feature_matcher_ros.runtimes.engine_manifest import EngineManifest, EngineSource, Environment, Profile

GRAPH = "a" * 64
CONTENT = b"machine code" * 1000
BUILT = Environment("tensorrt_rtx", "1.7.1", "", ("8.6", "8.9"))
HERE = replace(BUILT, architectures=("8.9",))
PROFILE = Profile({"state": ((2, 128), (1024, 128), (2048, 128)), "rows": ((1,), (512,), (1024,))})


def manifest(source: EngineSource, content: bytes = CONTENT) -> EngineManifest:
    return EngineManifest(
        "stage1", source.key, source, hashlib.sha256(content).hexdigest(), len(content), 1.5, "", None
    )


SOURCE = EngineSource(GRAPH, BUILT, "float16", (PROFILE,))


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    result = EngineCache(tmp_path / "engines")
    result.store(manifest(SOURCE), CONTENT)
    return result


def engine_path(cache: EngineCache) -> Path:
    return next(cache.folder.rglob("*.engine"))


def test_an_engine_comes_back_as_it_was_stored(cache: EngineCache) -> None:
    cache.choose(manifest(SOURCE), {"retention": 0.99})
    found = cache.find(GRAPH, HERE)
    assert found.content == CONTENT
    assert found.manifest.source == SOURCE and found.manifest.key == SOURCE.key
    assert found.manifest.acceptance == {"retention": 0.99}
    assert cache.holds(SOURCE.key, GRAPH) == found.manifest
    assert engine_path(cache).stat().st_mode & 0o077 == 0
    assert [path.suffix for path in sorted(engine_path(cache).parent.iterdir())] == [".engine", ".json"]


@pytest.mark.parametrize(
    "other",
    [
        replace(SOURCE, graph="b" * 64),
        replace(SOURCE, precision="float32"),
        replace(SOURCE, profiles=(PROFILE, PROFILE)),
        replace(SOURCE, environment=replace(BUILT, library="tensorrt")),
        replace(SOURCE, environment=replace(BUILT, version="1.8")),
        replace(SOURCE, environment=replace(BUILT, cuda="12.4")),
        replace(SOURCE, environment=replace(BUILT, architectures=("8.6",))),
    ],
)
def test_everything_that_decides_is_in_the_key(other: EngineSource) -> None:
    assert other.key != SOURCE.key
    assert replace(SOURCE).key == SOURCE.key


def test_what_was_built_by_an_older_recipe_is_built_again(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_matcher_ros.runtimes.engine_manifest.RECIPE", 99)
    with pytest.raises(RuntimeLoadError, match="there is no engine"):
        cache.find(GRAPH, HERE)


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (replace(HERE, architectures=("9.0",)), "compute capability 9.0, only for tensorrt_rtx 1.7.1 and compute"),
        (replace(HERE, version="1.8"), "no engine for tensorrt_rtx 1.8 and compute capability 8.9, only for"),
        (replace(HERE, library="tensorrt"), "no engine for tensorrt 1.7.1 and compute capability 8.9, only for"),
        (replace(HERE, cuda="13.0"), "with CUDA 13.0 and compute capability 8.9, only for"),
    ],
)
def test_a_foreign_engine_is_named_and_not_used(cache: EngineCache, here: Environment, said: str) -> None:
    with pytest.raises(RuntimeLoadError, match=said):
        cache.find(GRAPH, here)
    with pytest.raises(RuntimeLoadError, match="there is no engine for"):
        cache.find("b" * 64, HERE)
    with pytest.raises(RuntimeLoadError, match=r"only for .* in float16$"):
        cache.find(GRAPH, here)


def flip(content: bytes) -> bytes:
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


@pytest.mark.parametrize("change", [flip, lambda content: content[:-1], lambda content: b"", lambda content: b"x"])
def test_a_changed_engine_is_refused_and_built_again(cache: EngineCache, change: Callable[[bytes], bytes]) -> None:
    path = engine_path(cache)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(RuntimeLoadError, match=r"bytes that are not those that were built .*: build it again"):
        cache.find(GRAPH, HERE)
    assert cache.holds(SOURCE.key, GRAPH) is None
    path.unlink()
    with pytest.raises(RuntimeLoadError, match="is missing: build it again"):
        cache.find(GRAPH, HERE)
    path.mkdir(mode=0o700)
    with pytest.raises(RuntimeLoadError, match=r"cannot be read \(.*\): build it again"):
        cache.find(GRAPH, HERE)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"key": "0" * 64},
        {"source": {}},
        {"colour": "red"},
        {"source": {"graph": "c" * 64, "precision": "float16", "environment": {}, "profiles": []}},
    ],
)
def test_a_changed_manifest_is_no_manifest(
    cache: EngineCache, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    path = engine_path(cache).with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RuntimeLoadError, match="there is no engine"), caplog.at_level(logging.WARNING):
        cache.find(GRAPH, HERE)
    assert "build the engine again" in caplog.text
    assert cache.holds(SOURCE.key, GRAPH) is None


def test_an_engine_of_another_precision_cannot_pose_as_this_one(cache: EngineCache) -> None:
    path = engine_path(cache).with_suffix(".json")
    path.write_text(path.read_text().replace('"float16"', '"float32"'))
    with pytest.raises(RuntimeLoadError, match="there is no engine"):
        cache.find(GRAPH, HERE)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_an_engine_that_others_may_write_is_not_trusted(cache: EngineCache, mode: int) -> None:
    for path, given in ((engine_path(cache), mode), (engine_path(cache).parent, mode | 0o711)):
        before = path.stat().st_mode
        path.chmod(given)
        with pytest.raises(RuntimeLoadError, match=r"may be written by others than its user, .* chmod -R go-w"):
            cache.find(GRAPH, HERE)
        path.chmod(before)
    assert cache.find(GRAPH, HERE).content == CONTENT


def test_a_write_that_fails_leaves_what_was_there(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(own_files.os, "fsync", full)
        with pytest.raises(OutputError, match=r"No space left on device.*XDG_CACHE_HOME"):
            cache.store(manifest(SOURCE, b"new"), b"new")
    assert cache.find(GRAPH, HERE).content == CONTENT
    assert len(list(engine_path(cache).parent.iterdir())) == 2


def _hold(folder: Path, seconds: float, held: object) -> None:
    with EngineCache(folder).locked(GRAPH):
        held.set()
        time.sleep(seconds)


def test_one_process_builds_and_the_others_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, 0.5, held))
    other.start()
    assert held.wait(30.0)
    begun = time.monotonic()
    with caplog.at_level(logging.INFO), EngineCache(tmp_path).locked(GRAPH):
        assert time.monotonic() - begun > 0.2
    assert "another process builds engines" in caplog.text
    with EngineCache(tmp_path).locked("b" * 64):  # those of other graphs are not held
        pass
    other.join()


def test_the_cache_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_engine_folder() == tmp_path / "feature_matcher_ros" / "engines"


def test_a_profile_covers_what_lies_between_its_ends() -> None:
    assert PROFILE.covers({"state": (2, 128), "rows": (1024,)})
    assert not PROFILE.covers({"state": (2049, 128), "rows": (5,)})
    assert not PROFILE.covers({"state": (20, 128), "rows": (0,)})
