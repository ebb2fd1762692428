import numpy as np
import pytest

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.matchers.adaptive import BudgetRule, Pace, PruneRule, StopRule, paper_thresholds


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_thresholds_are_those_of_the_published_code() -> None:
    published = [0.9, 0.86411804, 0.84111124, 0.8263597, 0.8169013, 0.8108368, 0.80694836, 0.80445516, 0.80285656]
    assert paper_thresholds(9) == pytest.approx(published, abs=1e-7)


def test_dropped_points_count_as_final() -> None:
    rule = StopRule(0.75)
    assert not rule.is_satisfied(f32(0.95, 0.95, 0.95, 0.2), 0.9, num_points=4)  # three of four are not more than 75 %
    assert rule.is_satisfied(f32(0.95, 0.2), 0.9, num_points=5)  # one of five is open
    assert rule.is_satisfied(f32(0.9, 0.9, 0.9, 0.9), float(np.float32(0.9)), num_points=4)  # at the threshold: final
    assert not StopRule(None).is_satisfied(f32(1.0, 1.0), 0.9, num_points=2)
    assert not rule.is_satisfied(f32(1.0, 1.0), 1.0, num_points=2)  # a sigmoid is rounded to 1 from 17 on


def test_it_is_hopeless_only_when_every_point_is_final_and_unmatchable() -> None:
    rule = StopRule(0.95)
    assert rule.is_hopeless(f32(0.95, 0.99), f32(0.05, 0.1), 0.9, min_score=0.1)
    assert not rule.is_hopeless(f32(0.95, 0.5), f32(0.05, 0.1), 0.9, min_score=0.1)
    assert not rule.is_hopeless(f32(0.95, 0.99), f32(0.05, 0.11), 0.9, min_score=0.1)
    assert not StopRule(None).is_hopeless(f32(0.95), f32(0.0), 0.9, min_score=0.1)


def test_what_is_final_and_unmatchable_is_dropped() -> None:
    confidence, matchability = f32(0.95, 0.95, 0.5, 0.5), f32(0.5, 0.005, 0.5, 0.005)
    rule = PruneRule(0.99)
    assert rule.keep(confidence, matchability, 0.9).tolist() == [True, False, True, True]
    assert rule.keep(None, matchability, 0.9).tolist() == [True, False, True, False]
    assert PruneRule(None).keep(confidence, matchability, 0.9).all()


def test_a_calibrated_matchability_drops_points_final_or_not() -> None:
    confidence, matchability = f32(0.95, 0.95, 0.5, 0.5), f32(0.3, 0.005, 0.3, 0.299)
    assert PruneRule(0.99).keep(confidence, matchability, 0.9, 0.3).tolist() == [True, False, True, False]
    assert PruneRule(0.99).keep(None, matchability, 0.9, 0.3).tolist() == [True, False, True, False]
    assert PruneRule(0.99).keep(confidence, f32(0.0, 0.0, 0.0, 0.0), 0.9, 0.0).all()  # 0 drops none
    assert PruneRule(None).keep(confidence, matchability, 0.9, 0.3).all()


def test_the_budget_ends_where_the_next_stage_would_exceed_it() -> None:
    assert BudgetRule(20.0).allows(elapsed_ms=12.0, expected_ms=8.0)
    assert not BudgetRule(20.0).allows(elapsed_ms=12.0, expected_ms=8.1)
    assert BudgetRule(None).allows(1e9, 1e9)


def test_the_pace_follows_a_slow_measurement_at_once_and_a_fast_one_slowly() -> None:
    pace = Pace()
    assert pace.expected_ms(100.0) == 0.0
    pace.observe(10.0, 20.0)
    assert pace.expected_ms(100.0) == pytest.approx(200.0)
    pace.observe(10.0, 10.0)
    assert pace.expected_ms(100.0) == pytest.approx(180.0)
    pace.observe(10.0, 50.0)
    assert pace.expected_ms(100.0) == pytest.approx(500.0)


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan")])
def test_what_is_no_share_is_refused(value: float) -> None:
    for rule in (StopRule, PruneRule):
        with pytest.raises(ConfigError, match="is no share"):
            rule(value)
    if not value > 0:
        with pytest.raises(ConfigError, match="is no time"):
            BudgetRule(value)
