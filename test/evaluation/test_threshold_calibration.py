"""Thresholds of LightGlue: chosen as a slow search would choose them, and kept by a real network."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from command_line import feature_matcher
from image_pairs_scene import SIZE, K, render, write_pairs

from feature_matcher_ros.config import FrontEndConfig, load_config, override
from feature_matcher_ros.datatypes import Features, Float
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.evaluation.adaptive_matchers import with_stops
from feature_matcher_ros.evaluation.matchability_choice import choose_matchability
from feature_matcher_ros.evaluation.threshold_calibration import Wish
from feature_matcher_ros.evaluation.threshold_choice import (
    SCALE,
    DropTable,
    StopTable,
    choose_exits,
    choose_for_budget,
    choose_schedule,
    expected_ms,
    largest_stop_step,
    stop_stages,
    stop_table,
    upper_means,
)
from feature_matcher_ros.evaluation.threshold_records import PairRecord, StageRecord, agreement, record_pair
from feature_matcher_ros.evaluation.threshold_sample import PairRecorder
from feature_matcher_ros.geometry import pose_from, rotation_from_vector
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule
from feature_matcher_ros.matchers.lightglue import LightGlue

# Of Student's t, one-sided, at 95 %, by degrees of freedom from 7 on; as printed in any book of tables.
T_TABLE = [1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729]
T_TABLE += [1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699]


def random_table(seed: int, num_pairs: int = 30) -> StopTable:
    """Later stages agree better, surer pairs too; steps are few, so that many are equal."""
    random = np.random.default_rng(seed)
    steps = random.integers(1, 15, (num_pairs, 3)) * 6_000
    ease = random.uniform(0.0, 1.0, num_pairs)[:, None] * np.array([0.6, 0.25, 0.06])
    losses = np.column_stack((ease * (90_000 - steps) / 80_000, np.zeros(num_pairs)))
    return StopTable(steps, 1.0 - losses, np.cumsum(random.uniform(4.0, 6.0, (num_pairs, 4)), axis=1))


def searched_exits(table: StopTable, wanted: float) -> list[int]:
    """Try on every stage the confidence of every pair that is still there."""
    running, exits = list(range(len(table.steps))), []
    for stage in range(table.steps.shape[1]):
        chosen, most = (max(table.steps[:, stage]) + SCALE) // 2, -np.inf
        for step in sorted({table.steps[pair, stage] for pair in running}, reverse=True):
            losses = [1.0 - table.agreement[pair, stage] for pair in running if table.steps[pair, stage] >= step]
            if len(losses) < 8:
                continue
            bound = np.mean(losses) + T_TABLE[len(losses) - 8] * np.std(losses, ddof=1) / len(losses) ** 0.5
            excess = sum(1.0 - wanted - loss for loss in losses)
            if bound <= 1.0 - wanted and excess > most - 1e-9:
                chosen, most = step, excess
        running = [pair for pair in running if table.steps[pair, stage] < chosen]
        exits.append(int(chosen))
    return exits


@pytest.mark.parametrize("wanted", [0.8, 0.9, 0.95, 0.98])
def test_the_thresholds_are_those_of_a_search_through_all(wanted: float) -> None:
    found = [choose_exits(random_table(seed), wanted) for seed in range(20)]
    assert found == [tuple(searched_exits(random_table(seed), wanted)) for seed in range(20)]
    assert len(set(found)) > 3


def test_a_known_answer() -> None:
    """Ten easy pairs may stop at once, ten of the others after two stages, and the rest never."""
    steps = np.repeat([[90_000, 95_000], [60_000, 80_000], [50_000, 40_000]], 10, axis=0)
    kept = np.repeat([[1.0, 1.0, 1.0], [0.6, 1.0, 1.0], [0.5, 0.5, 1.0]], 10, axis=0)
    table = StopTable(steps, kept, np.repeat([[10.0, 20.0, 30.0]], 30, axis=0))
    assert choose_exits(table, 0.98) == (90_000, 80_000)
    assert stop_stages(table, (90_000, 80_000)).tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert expected_ms(table, (90_000, 80_000)) == pytest.approx(20.0)
    assert choose_exits(table, 0.0) == (50_000, 97_500)  # all stop at once; none is left to say how the second does
    few = StopTable(steps[7:], kept[7:], table.match_ms[7:])  # three easy pairs say too little
    assert choose_exits(few, 0.98)[0] == 95_000  # half way from the surest pair to certainty


def test_many_easy_pairs_do_not_pay_for_the_hard_ones() -> None:
    """However many easy pairs there are, those that are too hard to stop at once go on."""
    for num_easy in (10, 40, 160):
        steps = np.repeat([[90_000, 95_000], [60_000, 80_000]], (num_easy, 10), axis=0)
        kept = np.repeat([[0.97, 0.99, 1.0], [0.7, 0.9, 1.0]], (num_easy, 10), axis=0)
        table = StopTable(steps, kept, np.repeat([[10.0, 20.0, 30.0]], num_easy + 10, axis=0))
        assert choose_exits(table, 0.85) == (90_000, 80_000)
        assert choose_exits(table, 0.6)[0] == 60_000


def test_the_bound_of_the_mean_is_that_of_students_t() -> None:
    losses = np.random.default_rng(0).uniform(0.0, 0.3, 30)
    bounds = upper_means(losses)
    for count in range(8, 31):
        spread = np.std(losses[:count], ddof=1) / np.sqrt(count)
        assert bounds[count - 1] == pytest.approx(np.mean(losses[:count]) + T_TABLE[count - 8] * spread, abs=2e-4)
    assert upper_means(np.zeros(9)).tolist() == [0.0] * 9
    assert upper_means(np.ones(9)).max() == 1.0


def test_the_largest_threshold_that_stops_is_the_rules_own() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        share, num_points = float(random.choice([0.01, 0.5, 0.7, 0.95, 0.99])), int(random.integers(2, 120))
        confidence = (1.0 / (1.0 + np.exp(-random.normal(2.0, 4.0, num_points)))).astype(np.float32)
        step, rule = largest_stop_step(confidence, share), StopRule(share)
        assert rule.is_satisfied(confidence, step / SCALE, num_points)
        assert step == SCALE - 1 or not rule.is_satisfied(confidence, (step + 1) / SCALE, num_points)
    assert largest_stop_step(np.ones(50, np.float32), 0.95) == SCALE - 1


def features(num_points: int) -> Features:
    zeros = np.zeros(num_points, np.float32)
    return Features(np.zeros((num_points, 2), np.float32), zeros, np.zeros((num_points, 4), np.float32), (64, 48))


def random_record(seed: int) -> PairRecord:
    random = np.random.default_rng(seed)
    num0, num1 = (int(number) for number in random.integers(20, 40, 2))
    certainties = random.uniform(0.0, 1.0, (3, 2, num0 + num1)).astype(np.float32)
    certainties[:, 0] **= np.float32(0.3)
    nothing = np.zeros(0, np.float32)
    stages = [StageRecord(layer, *certainty, 0.9, 1.0) for layer, certainty in zip((1, 3, 4), certainties, strict=True)]
    matches = np.column_stack((random.permutation(20)[:15], random.permutation(20)[:15])).astype(np.int32)
    stages.append(StageRecord(6, nothing, nothing, 1.0, 1.0))
    return PairRecord(features(num0), features(num1), tuple(stages), matches)


def what_dropping_does(record: PairRecord, thresholds: tuple[float, ...]) -> tuple[int, float]:
    """Matches that lose a point, and the work of all six layers, by the rule of the matcher stage by stage."""
    num0, rule, begin, work = len(record.features0), PruneRule(), 0, 0.0
    kept = [True] * (num0 + len(record.features1))
    for stage, least in zip(record.stages, (*thresholds, 0.0), strict=True):
        num_kept = sum(kept)
        work += (stage.layers_done - begin) * (17 * 64 * num_kept + 2 * num_kept**2)
        begin = stage.layers_done
        if len(stage.matchability):
            stays = rule.keep(None, stage.matchability, 1.0, least)
            kept = [before and bool(now) for before, now in zip(kept, stays, strict=True)]
    return sum(not (kept[i] and kept[num0 + j]) for i, j in record.matches), work


def effect(records: list[PairRecord], thresholds: tuple[float, ...]) -> tuple[int, float]:
    found = [what_dropping_does(record, thresholds) for record in records]
    return sum(lost for lost, _ in found), sum(work for _, work in found)


def telling_record(seed: int) -> PairRecord:
    """Matched points are matchable from the first stage on, the more the later; of the others, ever fewer are."""
    record, random = random_record(seed), np.random.default_rng(seed + 1000)
    num0, num_points = len(record.features0), len(record.features0) + len(record.features1)
    is_matched = np.isin(np.arange(num_points), (record.matches[:, 0], num0 + record.matches[:, 1]))
    stages = [
        replace(stage, matchability=np.where(is_matched, random.beta(4 + 2 * late, 2, num_points), fate))
        for late, stage in enumerate(record.stages[:-1])
        for fate in [random.beta(2, 2 + 2 * late, num_points)]
    ]
    float32 = [replace(stage, matchability=stage.matchability.astype(np.float32)) for stage in stages]
    return replace(record, stages=(*float32, record.stages[-1]))


def test_dropping_points_saves_nearly_as_much_as_the_best_thresholds_of_all_would() -> None:
    """Beside a search through all thresholds that are multiples of 0.08, with the rule written out."""
    records = [telling_record(seed) for seed in range(8)]
    num_matches, (_, most_work) = sum(len(record.matches) for record in records), effect(records, (0.0, 0.0, 0.0))
    grid = [tuple(0.08 * step for step in steps) for steps in product(range(9), repeat=3)]
    tried = [effect(records, thresholds) for thresholds in grid]
    shares = (0.0, 0.02, 0.05, 0.1, 0.2)
    works = []
    for share, thresholds in zip(shares, choose_matchability(records, shares, 64), strict=True):
        num_lost, work = effect(records, thresholds)
        assert num_lost <= share * num_matches and max(thresholds) <= 0.8
        assert most_work - work > 0.9 * (most_work - min(other for lost, other in tried if lost <= share * num_matches))
        works.append(work)
    assert works == sorted(works, reverse=True) and works[-1] < 0.9 * works[0] < 0.9 * most_work
    unmatched = [replace(record, matches=record.matches[:0]) for record in records]
    assert choose_matchability(unmatched, [0.0], 64)[0][0] == 0.8  # without matches none can be lost


def test_a_schedule_has_a_threshold_for_each_layer_and_never_stops_inside_a_stage() -> None:
    records = [random_record(seed) for seed in range(12)]
    tables = [DropTable((), stop_table(records, 0.6))]
    schedule = choose_schedule(records[0], tables, 0.85, num_layers=6)
    assert [threshold == 1.0 for threshold in schedule.thresholds] == [False, True, False, False, True, True]
    assert schedule.matchability_thresholds == (0.0,) * 6
    lossless = choose_schedule(records[0], tables, 1.0, num_layers=6)
    assert (
        lossless.thresholds[0] > max(largest_stop_step(record.stages[0].confidence, 0.6) for record in records) / SCALE
    )


def test_points_are_dropped_for_half_of_what_may_be_lost() -> None:
    """Dropping costs 0, 1, 4 and 9 % of the matches of pairs that are not stopped, all of them alike."""
    record, steps = random_record(0), np.full((20, 3), 50_000)
    tables = [
        DropTable(
            (0.1 * number, 0.2, 0.3), StopTable(steps, np.full((20, 4), 1.0 - 0.01 * number**2), np.ones((20, 4)))
        )
        for number in range(4)
    ]
    for wanted, chosen in ((0.995, 0), (0.981, 0), (0.979, 1), (0.921, 1), (0.919, 2), (0.81, 3), (0.5, 3)):
        found = choose_schedule(record, tables, wanted, num_layers=6).matchability_thresholds
        assert found == pytest.approx((0.1 * chosen, 0.0, 0.2, 0.3, 0.0, 0.0))


def test_a_budget_takes_the_best_agreement_that_fits() -> None:
    table = random_table(3)
    for budget_ms in (6.0, 9.0, 12.0, 16.0):
        wanted = choose_for_budget(table, budget_ms)
        assert wanted is not None and expected_ms(table, choose_exits(table, wanted)) <= budget_ms
        better = np.arange(wanted + 0.002, 1.0001, 0.002)
        assert all(expected_ms(table, choose_exits(table, float(level))) > budget_ms for level in better)
    assert choose_for_budget(table, 1000.0) == 1.0
    assert choose_for_budget(table, 3.0) is None


def test_the_agreement_counts_what_is_missing_and_what_is_too_much() -> None:
    def pairs(*matches: tuple[int, int]) -> np.ndarray:
        return np.array(matches, np.int32).reshape(-1, 2)

    assert agreement(pairs((1, 2), (3, 4)), pairs((3, 4), (1, 2))) == 1.0
    assert agreement(pairs((1, 2), (3, 4)), pairs((3, 4), (1, 5))) == 0.5
    assert agreement(pairs((1, 2)), pairs((1, 2), (3, 4), (5, 6))) == 0.5
    assert agreement(pairs(), pairs((1, 2))) == 0.0
    assert agreement(pairs(), pairs()) == 1.0


@pytest.mark.parametrize("wish", [{"agreement": 1.5}, {"agreement": float("nan")}, {"budget_ms": 0.0}])
def test_a_wish_that_cannot_be_is_refused(wish: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="cannot be: give"):
        Wish(**wish)


# From here on with real networks.


def motion(number: int) -> Float:
    turn = rotation_from_vector(np.array([0.0, 0.004, 0.002]) * number)
    return pose_from(turn, np.array([0.02, 0.004, 0.01]) * number)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images: a slow walk past two walls."""
    folder = tmp_path_factory.mktemp("walk")
    for number in range(31):
        cv2.imwrite(str(folder / f"{number}.png"), render(motion(number)))
    camera = {"width": SIZE[0], "height": SIZE[1], "K": K.ravel().tolist()}
    (folder / "calibration.yaml").write_text(yaml.safe_dump(camera))
    return folder


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small networks: ``same``, no layer of which changes the states, and ``other``, each of which does."""
    torch = pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    pytest.importorskip("onnx", reason="the export needs onnx: pip install feature_matcher_ros[torch]")
    from feature_matcher_ros.export.to_onnx import Origin, export_lightglue
    from feature_matcher_ros.models.lightglue_config import LightGlueConfig
    from feature_matcher_ros.training.initial_weights import untrained_lightglue

    folder = tmp_path_factory.mktemp("graphs")
    for name, noise in (("same", 0.0), ("other", 0.02)):
        config = LightGlueConfig(descriptor_size=128, width=64, heads=2, layers=3, scale_orientation=True)
        model = untrained_lightglue(config, seed=0).eval().requires_grad_(False)
        for layer in model.transformers:
            for block in (layer.self_attn, layer.cross_attn):
                torch.nn.init.normal_(block.ffn[-1].weight, std=noise)
        export_lightglue(model, Origin(name, "Apache-2.0", "none"), folder / name)
    return folder


def settings(graphs: Path, **more: object) -> dict[str, object]:
    return {
        "extractor.max_keypoints": 96,
        "matcher.name": "lightglue",
        "matcher.graphs": str(graphs),
        "matcher.num_threads": 1,
        "keyframes.match_every_frame": "true",
        **more,
    }


def as_options(values: dict[str, object]) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


def test_layers_that_change_nothing_are_not_run(
    graphs: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "made" / "thresholds.yaml"
    monkeypatch.chdir(graphs)
    options = as_options(settings(Path("same")))
    code, out, err = feature_matcher(capsys, "calibrate", recording, "-o", output, *options)
    assert (code, err) == (0, ""), err
    assert re.search(r"(3\d) of \1 pairs: 1\d chose, the tables are of the other 1\d", out)
    assert output.with_suffix(".png").stat().st_size > 10_000

    config = load_config(output)
    assert set(yaml.safe_load(output.read_text())["/**"]["ros__parameters"]) == {"matcher"}
    assert config.matcher.graphs == str(graphs / "same")  # whoever reads the file, from wherever
    assert len(config.matcher.confidence_thresholds) == 3 and config.matcher.confidence_thresholds[0] < 0.8
    matcher, by_paper = (
        create_matcher(override(part, {"extractor.max_keypoints": 96}))
        for part in (config, override(config, {"matcher.confidence_thresholds": (), "matcher.width_confidence": 1.0}))
    )
    images = [render(motion(number)) for number in (3, 4, 17, 19)]
    pairs = [[matcher.extract(image) for image in images[start : start + 2]] for start in (0, 2)]
    for features0, features1 in pairs:
        found, full = matcher.match(features0, features1), by_paper.match(features0, features1)
        assert (found.layers_run, full.layers_run) == (1, 3)
        assert found.indices is not None and full.indices is not None and len(full) > 20
        assert agreement(found.indices, full.indices) == 1.0


def test_what_is_recorded_is_what_the_matcher_does(graphs: Path) -> None:
    config = override(FrontEndConfig(), settings(graphs / "other"))
    matcher = create_matcher(config)
    assert isinstance(matcher, LightGlue)
    features0, features1 = (matcher.extract(render(motion(number))) for number in (0, 6))
    record, matches = record_pair(features0, features1, matcher.graphs, matcher.rules.min_score)
    full = with_stops(matcher).match(features0, features1)
    assert full.indices is not None and len(full) > 10
    np.testing.assert_array_equal(full.indices, record.matches)
    np.testing.assert_array_equal(full.points1, matches.points1)
    np.testing.assert_array_equal(full.scores, matches.scores)
    for number, stage in enumerate(record.stages[:-1]):
        for step, layers_run in ((stop := largest_stop_step(stage.confidence, 0.95), number + 1), (stop + 1, 3)):
            thresholds = [1.0] * 3
            thresholds[number] = step / SCALE
            found = with_stops(matcher, 0.95, tuple(thresholds)).match(features0, features1)
            assert found.layers_run == layers_run and found.indices is not None
            assert agreement(found.indices, full.indices) == (stage.agreement if layers_run < 3 else 1.0)
    assert record.stages[0].agreement < 1.0
    again = [record_pair(features0, features1, matcher.graphs, matcher.rules.min_score)[0] for _ in range(5)]
    first_ms, last_ms = (min(other.stages[number].match_ms for other in again) for number in (0, -1))
    assert 0.0 < first_ms < last_ms


def test_what_is_recorded_of_fewer_points_is_what_the_matcher_does() -> None:
    matcher = create_matcher(override(FrontEndConfig(), {"extractor.max_keypoints": 128, "matcher.num_threads": 1}))
    assert isinstance(matcher, LightGlue)
    given = tuple(matcher.extract(render(motion(number))) for number in (0, 6))
    graphs, min_score, drops = matcher.graphs, matcher.rules.min_score, (0.5, 0.0, 0.3)
    record, _ = record_pair(*given, graphs, min_score)
    thinned, _ = record_pair(*given, graphs, min_score, drops, wanted=record.matches)
    fewer = with_stops(matcher, None, (), (*drops, 0.0, 0.0, 0.0), PruneRule().width_confidence).match(*given)
    assert fewer.points_per_stage is not None and fewer.indices is not None
    num_points = fewer.points_per_stage.sum(axis=1).tolist()
    assert num_points[:5] == [len(stage.confidence) for stage in thinned.stages[:-1]]
    assert num_points[0] == len(record.stages[0].matchability)
    assert num_points[1] == num_points[2] == np.count_nonzero(record.stages[0].matchability >= 0.5) < num_points[0]
    assert num_points[3] < num_points[2]
    np.testing.assert_array_equal(fewer.indices, thinned.matches)
    assert thinned.stages[-1].agreement == agreement(fewer.indices, record.matches) > 0.5


def test_the_wanted_agreement_is_kept_where_layers_differ(
    graphs: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = as_options(settings(graphs / "other"))
    code, out, err = feature_matcher(
        capsys, "calibrate", recording, "-o", tmp_path / "calibration.yaml", "--agreement", "0.9", *options
    )
    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if "agreement with all layers, mean" in line)
    all_layers, _, calibrated = (float(cell.strip(" %")) for cell in row.split("│")[2:5])
    assert all_layers == 100.0 and calibrated >= 90.0


def test_a_sample_is_even(graphs: Path) -> None:
    matcher = create_matcher(override(FrontEndConfig(), settings(graphs / "same", **{"extractor.max_keypoints": 8})))
    assert isinstance(matcher, LightGlue)
    image = matcher.extract(render(motion(0)))
    recorder = PairRecorder(matcher, max_pairs=20)
    taken = []
    for number in range(200):
        before = recorder.pairs
        recorder.match(image, image)
        if recorder.pairs != before:
            taken.append(number)
    assert recorder.num_seen == 200 and len(recorder.pairs) == 20
    assert taken[:20] == list(range(20))
    expected = sum(20 / number for number in range(21, 201))  # pairs that took the place of another one: 46
    assert abs(len(taken) - 20 - expected) < 4 * expected**0.5


@pytest.mark.parametrize(
    ("options", "more", "sentence"),
    [
        ([], {"matcher.name": "mutual_nearest"}, "matcher.name = mutual_nearest has no thresholds to choose"),
        ([], {"matcher.depth_confidence": 1.0}, "matcher.depth_confidence = 1 never stops"),
        (["--duration", "0.3"], {}, "gave 8 pairs and thresholds are chosen from at least 20"),
        (["--duration", "0.01"], {}, "gave no pair of images with points to match"),
        (["--agreement", "1.2"], {}, "an agreement of 1.2 cannot be"),
        (["--agreement", "0.9", "--budget-ms", "9"], {}, "--agreement and --budget-ms exclude each other"),
        (["--budget-ms", "0.001", "--duration", "0.75"], {}, "a budget of 0.001 ms cannot be kept"),
        (["--output", "/proc/none/thresholds.yaml"], {}, "/proc/none/thresholds.yaml cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    graphs: Path,
    recording: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    more: dict[str, object],
    sentence: str,
) -> None:
    output = [] if "--output" in options else ["-o", str(tmp_path / "thresholds.yaml")]
    words = as_options(settings(graphs / "same", **more))
    code, _, err = feature_matcher(capsys, "calibrate", recording, *output, *options, *words)
    assert code == 1 and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "thresholds.yaml").exists()


def test_a_list_of_pairs_is_a_source_too(graphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    motions = [motion(number) for number in range(1, 22)]
    path = write_pairs(tmp_path, motions, motions)
    output = tmp_path / "thresholds.yaml"
    words = as_options(settings(graphs / "same"))
    code, out, err = feature_matcher(capsys, "calibrate", path, "-o", output, "--budget-ms", "500", *words)
    assert (code, err) == (0, "")
    assert "21 of 21 pairs: 11 chose, the tables are of the other 10" in out
    assert "# for the best agreement within 500 ms a pair, 100 %" in output.read_text()
    code, _, err = feature_matcher(capsys, "calibrate", path, "-o", output, "--stride", "2", *words)
    assert code == 1 and "have no effect on image pairs" in err
