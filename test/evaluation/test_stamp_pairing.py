"""Pairing while reading gives what pairing everything at once gives."""

import numpy as np
import pytest

from feature_matcher_ros.evaluation.stamp_pairing import StampPairer


@pytest.mark.parametrize("seed", range(20))
def test_two_streams_with_jitter_and_gaps(seed: int) -> None:
    """Every arrival order that keeps each stream's own order, against the nearest of all."""
    random = np.random.default_rng(seed)
    period, tolerance = 100, 40
    firsts = np.sort(np.arange(60) * period + random.integers(-20, 20, 60))[random.random(60) > 0.1]
    seconds = np.sort(np.arange(60) * period + random.integers(-30, 30, 60))[random.random(60) > 0.2]
    lag = random.integers(-300, 300)
    events = sorted([(t, 0, t) for t in firsts.tolist()] + [(t + lag, 1, t) for t in seconds.tolist()])
    pairer = StampPairer[int, int](tolerance)
    found = []
    for _, stream, t in events:
        found += list(pairer.add_second(t, t) if stream else pairer.add_first(t, t))
    found += list(pairer.finish())
    assert [pair.stamp_ns for pair in found] == firsts.tolist()
    for pair in found:
        nearest = seconds[np.argmin(np.abs(seconds - pair.item))]
        if abs(nearest - pair.item) > tolerance:
            assert pair.partner is None
        else:
            assert pair.partner is not None and abs(pair.partner - pair.item) == abs(nearest - pair.item)


def test_an_equal_stamp_wins_however_late_it_comes() -> None:
    pairer = StampPairer[str, str](50)
    assert list(pairer.add_first(100, "a")) == []
    assert list(pairer.add_second(99, "near")) == []
    [pair] = pairer.add_second(100, "equal")
    assert (pair.stamp_ns, pair.item, pair.partner) == (100, "a", "equal")


def test_a_stream_that_stops_is_not_waited_for() -> None:
    pairer = StampPairer[int, int](50)
    decided = [pair for number in range(100) for pair in pairer.add_first(100 * number, number)]
    assert len(decided) > 80 and all(pair.partner is None for pair in decided)
    assert len(decided) + len(list(pairer.finish())) == 100


def test_time_that_runs_backwards() -> None:
    pairer = StampPairer[int, int](10)
    found = []
    for t in (500, 600, 100, 200, 300, 500):
        found += [*pairer.add_first(t, t), *pairer.add_second(t, t)]
    assert [(pair.item, pair.partner) for pair in found] == [(t, t) for t in (500, 600, 100, 200, 300, 500)]
