"""Times of stages."""

import time

import pytest

from feature_matcher_ros.timing import StageTimer


def test_stages_add_up_and_keep_their_order() -> None:
    timer = StageTimer()
    for name, seconds in (("extract", 0.02), ("match", 0.001), ("extract", 0.02)):
        with timer.stage(name):
            time.sleep(seconds)
    assert list(timer.stages_ms) == ["extract", "match"]
    assert 40.0 <= timer.stages_ms["extract"] < 400.0


def test_a_stage_that_raises_is_timed_too() -> None:
    timer = StageTimer()
    with pytest.raises(ValueError), timer.stage("pose"):
        raise ValueError
    assert timer.stages_ms["pose"] >= 0.0
