"""Run folders that are written a second time, and the command that measures them."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import feature_matcher
from synthetic_run import write_run
from tiny_bags import TinyBag, stamp
from tiny_datasets import write_image_folder

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.errors import OutputError
from feature_matcher_ros.evaluation.evaluate import evaluate_run
from feature_matcher_ros.evaluation.replay import ReplayOptions, replay
from feature_matcher_ros.evaluation.run_folder import RunFolder
from feature_matcher_ros.evaluation.sequences import Selection
from feature_matcher_ros.geometry import pose_from

FAST = override(FrontEndConfig(), {"extractor.name": "orb", "matcher.name": "mutual_nearest"})
FOREIGN = ("notes.txt", "trajectory_best.tum", "topics.mcap", "topics/notes.txt")


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """The folder of a run with truth, topics and several segments."""
    bag = TinyBag("mcap")
    bag.camera()
    for number in range(5):
        bag.pose_stamped("/ground_truth/pose", stamp(number), pose_from(np.eye(3), [number, 0.0, 0.0]))
    run = tmp_path / "run"
    replay(bag.write(tmp_path), run, config=FAST)
    for name in ("trajectory_0.tum", "trajectory_12.tum", "matches.mp4", "recording.rrd", "report.html", "report.json"):
        (run / name).write_text("of the earlier run")
    return run


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_replay_replaces_all_of_an_earlier_run_and_nothing_else(used: Path, tmp_path: Path) -> None:
    assert {"ground_truth.tum", "topics/metadata.yaml", "topics/topics.mcap"} < files_of(used)
    for name in FOREIGN:
        (used / name).write_text("mine")
    replay(write_image_folder(tmp_path / "images"), used, config=FAST, options=ReplayOptions(topics=False))
    assert files_of(used) == {"run.json", "pairs.csv", "trajectory.tum", *FOREIGN}
    assert all((used / name).read_text() == "mine" for name in FOREIGN)
    evaluation = evaluate_run(used)
    assert (evaluation.pairs, evaluation.tracks) == (None, None)
    assert any(remark.startswith("There is no ground truth") for remark in evaluation.remarks)


@pytest.mark.parametrize("name", ["ground_truth.tum", "pairs.csv", "report.html", "topics/mine.mcap"])
def test_a_folder_that_held_no_run_loses_nothing(tmp_path: Path, name: str) -> None:
    images, mine = write_image_folder(tmp_path / "images"), tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match=rf"{name.split('/')[0]}' is there already .* choose another --output"):
        replay(images, tmp_path / "out", config=FAST)
    assert (files_of(tmp_path / "out"), mine.read_text()) == ({name}, "mine")
    mine.rename(tmp_path / "out" / "notes.txt")
    (tmp_path / "out" / "topics").rmdir() if "topics" in name else None
    (tmp_path / "out" / "run.json.part").write_text("of a run that found no space")
    replay(images, tmp_path / "out", config=FAST)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("part", ["matches.mp4", "topics", "topics/topics.mcap"])
def test_a_run_is_not_replaced_by_a_replay_of_itself(used: Path, part: str) -> None:
    before = files_of(used)
    with pytest.raises(OutputError, match=r"belongs to the run in .* choose another --output"):
        replay(used / part, used, config=FAST)
    assert files_of(used) == before


def test_a_run_whose_process_was_killed_is_measured_all_the_same(
    used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It leaves an unfinished bag of topics."""
    (used / "topics" / "topics.mcap").write_bytes((used / "topics" / "topics.mcap").read_bytes()[:700])
    (used / "topics" / "metadata.yaml").unlink()
    (used / "trajectory.tum").unlink()
    code, out, err = feature_matcher(capsys, "evaluate", used)
    assert (code, err) == (0, "") and "Nothing is said of the tracks" in out
    assert evaluate_run(used).frames.num_frames == 5


def test_folders_whose_names_hold_dots_get_runs_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("walk.1", "walk.2"):
        folder = write_image_folder(tmp_path / name, count=2)
        assert feature_matcher(capsys, "replay", folder, "-m", "mutual_nearest", "--no-report")[0] == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["walk.1", "walk.2"]


def test_an_unlimited_duration_and_interval_have_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has no word for infinity."""
    images, run = write_image_folder(tmp_path / "images", count=2), tmp_path / "run"
    words = ["--duration", "inf", "-s", "keyframes.max_interval_ms=inf", "-m", "mutual_nearest"]
    assert feature_matcher(capsys, "replay", images, "-o", run, *words)[0] == 0
    for name in ("run.json", "report.json"):
        json.loads((run / name).read_text(), parse_constant=pytest.fail)
    assert RunFolder(run).read_info().source_selection() == Selection(duration_s=float("inf"))


def test_several_runs_are_measured_against_a_given_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / name, num_frames=40).folder for name in ("a", "b")]
    arguments = ("evaluate", *runs, "-o", tmp_path / "both", "--ground-truth")
    truth = tmp_path / "truth.tum"
    (runs[0] / "ground_truth.tum").rename(truth)
    (runs[1] / "ground_truth.tum").unlink()
    code, out, _ = feature_matcher(capsys, *arguments, truth)
    assert code == 0 and "ATE" in out
    code, _, err = feature_matcher(capsys, *arguments, tmp_path / "missing.tum")
    assert (code, err.count("\n")) == (1, 1) and "missing.tum" in err


@pytest.mark.parametrize(
    ("path", "arguments", "sentence"),
    [
        ("run", ["-o", "elsewhere"], "--output is where a comparison is written"),
        ("run", ["-s", "nonsense.key=3"], "--config, --set and --matcher choose what matches image pairs"),
        ("run", ["--matcher", "lightglue"], "--config, --set and --matcher choose what matches image pairs"),
        ("run", ["-c", "mine.yaml"], "--config, --set and --matcher choose what matches image pairs"),
        ("run", ["--plot", "layers.png"], "--plot draws the results of image pairs"),
        ("pairs.json", ["--ground-truth", "truth.tum"], "--ground-truth is what runs are measured against"),
        ("pairs.json", ["-o", "elsewhere"], "--output is where a comparison is written"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    path: str, arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", num_frames=20)
    (tmp_path / "pairs.json").touch()
    code, _, err = feature_matcher(capsys, "evaluate", tmp_path / path, *arguments)
    assert (code, err.count("\n")) == (1, 1) and sentence in err
