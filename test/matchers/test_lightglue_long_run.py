"""What shows only after many pairs: memory that grows, and a budget that is overdrawn."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip("onnx", reason="the export needs onnx: pip install feature_matcher_ros[torch]")

from random_network import write_random_network

from feature_matcher_ros import timing
from feature_matcher_ros.datatypes import Features, Image, StopReason
from feature_matcher_ros.matchers.adaptive import BudgetRule
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.models.lightglue_config import LightGlueConfig

pytestmark = pytest.mark.slow

# Matches pairs of all sizes with the network of a folder and prints the memory, in bytes, after 200 and after 2,000.
MANY_PAIRS = """
import resource, sys
from pathlib import Path
import numpy as np
from feature_matcher_ros.datatypes import Features
from feature_matcher_ros.matchers.lightglue import LightGlue
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue

def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def features(rng):
    size = int(rng.integers(1, 200))
    points = rng.uniform(0, 400, (size, 2)).astype(np.float32)
    return Features(points, np.ones(size, np.float32), rng.standard_normal((size, 32)).astype(np.float32), (640, 480))

matcher, rng = LightGlue(None, open_lightglue(Path(sys.argv[1]), num_threads=1)), np.random.default_rng(0)
for number in range(1, 2001):
    matcher.match(features(rng), features(rng))
    if number in (200, 2000):
        print(memory())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the memory is read from Linux' /proc")
def test_memory_does_not_grow_over_two_thousand_pairs(tmp_path: Path) -> None:
    write_random_network(tmp_path, LightGlueConfig(32, 32, 2, 4))
    program = [sys.executable, "-c", MANY_PAIRS, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600, check=True)
    early, late = map(int, done.stdout.split())
    assert late - early < max(0.02 * early, 4e6), f"{early / 1e6:.1f} MB after 200 pairs, {late / 1e6:.1f} after 2,000"


class NoExtractor:
    name = "none"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        raise NotImplementedError


def random_features(rng: np.random.Generator, size: int) -> Features:
    keypoints = rng.uniform(0, 400, (size, 2)).astype(np.float32)
    descriptors = rng.standard_normal((size, 64)).astype(np.float32)
    return Features(keypoints, np.ones(size, np.float32), descriptors, (640, 480))


def thread_ms(matcher: LightGlue, pair: tuple[Features, Features]) -> tuple[float, StopReason | None]:
    begun_ns = time.thread_time_ns()
    reason = matcher.match(*pair).stop_reason
    return (time.thread_time_ns() - begun_ns) * 1e-6, reason


def test_half_the_time_of_all_layers_is_kept_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 99th percentile of 250 pairs of all sizes exceeds the budget by 15 % at most.

    All of it, the matcher's own look at the clock included, goes by the processor time of the one thread that
    works: what other programs do to the wall clock is not the matcher's to answer for.
    """
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter_ns=time.thread_time_ns))
    write_random_network(tmp_path, LightGlueConfig(64, 64, 2, 9))
    graphs, rng = open_lightglue(tmp_path, num_threads=1), np.random.default_rng(0)
    full = LightGlue(NoExtractor(), graphs)
    largest = (random_features(rng, 400), random_features(rng, 400))
    budget_ms = 0.5 * float(np.median([thread_ms(full, largest)[0] for _ in range(15)]))
    hasty = LightGlue(NoExtractor(), graphs, LightGlueRules(budget=BudgetRule(budget_ms)))
    unhurried, hurried, reasons = [], [], []
    for number in range(250):
        pair = (random_features(rng, int(rng.integers(200, 401))), random_features(rng, int(rng.integers(200, 401))))
        if number % 5 == 0:
            unhurried.append(thread_ms(full, largest)[0])
        elapsed_ms, reason = thread_ms(hasty, pair)
        hurried.append(elapsed_ms)
        reasons.append(reason)
    p99_ms, jitter = np.percentile(hurried, 99), np.percentile(unhurried, 99) / np.median(unhurried)
    if p99_ms > 1.15 * budget_ms and jitter > 1.15:
        pytest.skip(f"the same pair takes up to {jitter:.2f} times its median here: the machine is too busy to tell")
    assert p99_ms <= 1.15 * budget_ms
    assert reasons.count(StopReason.BUDGET) > 125  # it was the budget that stopped it, not the end of the network
    assert np.median(hurried) > 0.6 * budget_ms  # and it did not stop long before it had to
