"""Engines of the shipped network as the fakes execute them, and what to give them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from fake_tensorrt import engine_bytes

from feature_matcher_ros.datatypes import Features
from feature_matcher_ros.runtimes.engine_cache import EngineCache
from feature_matcher_ros.runtimes.engine_manifest import EngineManifest, EngineSource, Environment, Profile
from feature_matcher_ros.runtimes.manifest import read_manifest

SHIPPED = Path(__file__).parents[1] / "engines" / "lightglue_sift"
MANIFEST = read_manifest(SHIPPED)
BUILT_FOR = Environment("tensorrt_rtx", "1.7.1", "", ("8.6", "8.9"))
SMALL, LARGE = 64, 300


def profiles_of(name: str, *budgets: int) -> tuple[Profile, ...]:
    def ends(tensor: Any, budget: int) -> Any:
        sizes = {"points": (2, budget, 2 * budget), "points0": (1, budget, budget), "points1": (1, budget, budget)}
        return tuple(zip(*(sizes.get(size, (size,) * 3) for size in tensor.shape), strict=True))

    inputs = MANIFEST.graphs[name].spec.inputs
    return tuple(Profile({tensor.name: ends(tensor, budget) for tensor in inputs}) for budget in budgets)


def store(cache: EngineCache, name: str, environment: Environment = BUILT_FOR, content: bytes | None = None) -> Path:
    """As if it had been built."""
    entry = MANIFEST.graphs[name]
    source = EngineSource(entry.sha256, environment, "float16", profiles_of(name, SMALL, LARGE))
    version = f"{environment.library} {environment.version}"
    content = content or engine_bytes(str(SHIPPED / entry.file), entry.spec, source.profiles, version)
    digest = hashlib.sha256(content).hexdigest()
    manifest = EngineManifest(name, source.key, source, digest, len(content), 1.0, "", None)
    path = cache.store(manifest, content)
    cache.choose(manifest, None)
    return path


def features(num_points: int, seed: int) -> Features:
    """Points of one scene, of which another image sees the first ones too, a little moved and turned."""
    scene, own = np.random.default_rng(5), np.random.default_rng(seed)
    descriptors = np.abs(scene.standard_normal((LARGE, 128)))[:num_points] + 0.05 * own.standard_normal(
        (num_points, 128)
    )
    keypoints = scene.uniform(20, 460, (LARGE, 2))[:num_points] + own.normal(0, 1.0, (num_points, 2)) + 5.0
    strangers = np.arange(num_points) >= num_points * 2 // 3
    descriptors[strangers] = np.abs(own.standard_normal((strangers.sum(), 128)))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(
        keypoints.astype(np.float32),
        np.ones(num_points, np.float32),
        descriptors.astype(np.float32),
        (640, 480),
        scales=scene.uniform(2, 9, LARGE).astype(np.float32)[:num_points],
        orientations=scene.uniform(0, 6, LARGE).astype(np.float32)[:num_points],
    )


def stage_inputs(points0: int, points1: int) -> dict[str, Any]:
    generator, count = np.random.default_rng(1), points0 + points1
    rows = np.arange(count, dtype=np.int32)
    angles = generator.uniform(-3, 3, (count, 16)).astype(np.float32)
    return {
        "state": generator.standard_normal((count, 128)).astype(np.float32),
        "cosines": np.cos(angles),
        "sines": np.sin(angles),
        "rows0": rows[:points0],
        "rows1": rows[points0:],
    }
