"""The folder that a replay writes and the evaluation reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from feature_matcher_ros.datatypes import Trajectory
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.evaluation.pair_table import PairRow, read_pair_table
from feature_matcher_ros.evaluation.sequences import Modality, Selection
from feature_matcher_ros.evaluation.topic_bag import remove_bag
from feature_matcher_ros.evaluation.trajectories import read_tum

# What a run writes beside its topics, ``run.json`` apart.
_FILES = re.compile(
    r"(ground_truth|trajectory(_\d+)?)\.tum|pairs\.csv|matches\.mp4|recording\.rrd|report\.(html|json)|run\.json\.part"
)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What ``run.json`` says: where the frames came from, what processed them, how it ended."""

    name: str
    source: str
    layout: str
    modality: Modality
    matcher: str
    config: Mapping[str, Any]  # path -> value, as JSON holds it
    selection: Mapping[str, Any]  # only what was chosen
    num_frames: int
    skipped: Mapping[str, int]  # reason -> frames
    finished: bool
    wall_s: float
    versions: Mapping[str, str]
    assumptions: tuple[str, ...]
    truth_sigma_m: float | None  # noise of the source's true positions; None if nobody knows it

    def source_selection(self) -> Selection:
        """The part of the source that was read."""
        values = {field.name: self.selection[field.name] for field in fields(Selection) if field.name in self.selection}
        if "modality" in values:
            values["modality"] = Modality(values["modality"])
        if "calibration" in values:
            values["calibration"] = Path(values["calibration"])
        if "duration_s" in values:
            values["duration_s"] = float(values["duration_s"])  # which may be written as "inf"
        return Selection(**values)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on disk; nothing is read before it is asked for."""

    path: Path

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def trajectory_file(self) -> Path:
        return self.path / "trajectory.tum"

    @property
    def ground_truth_file(self) -> Path:
        return self.path / "ground_truth.tum"

    @property
    def pairs_file(self) -> Path:
        return self.path / "pairs.csv"

    @property
    def topics(self) -> Path:
        return self.path / "topics"

    def writes(self, path: Path) -> bool:
        """Whether a file or folder is one that a run writes here."""
        path = path.resolve()
        is_file_of_run = path.parent == self.path.resolve() and bool(_FILES.fullmatch(path.name))
        return is_file_of_run or self.topics.resolve() in (path, *path.parents)

    def refuse_foreign(self) -> None:
        """Refuse a folder in which a run would take the place of files that no run wrote.

        Raises:
            OutputError: there is one, and no ``run.json``.
        """
        if self.run_json.is_file() or not self.path.is_dir():
            return
        known = [*self.path.glob("*.*"), self.topics]
        foreign = [path for path in known if path.exists() and self.writes(path) and path.suffix != ".part"]
        if foreign:
            raise OutputError(f"'{foreign[0]}' is there already and of no run: choose another --output.")

    def clear(self) -> None:
        """Remove an earlier run, and nothing that it did not write; a folder without ``run.json`` holds none.

        Raises:
            OSError: a file cannot be removed.
        """
        if not self.run_json.is_file():
            return
        for path in [path for path in self.path.iterdir() if _FILES.fullmatch(path.name)]:
            path.unlink()
        remove_bag(self.topics)
        self.run_json.unlink()  # the last one, so that what is left of a run is still known as such

    def read_info(self) -> RunInfo:
        """Read ``run.json``; SourceError if this is no run folder."""
        return _read_run_json(self.run_json)

    def read_rows(self) -> tuple[PairRow, ...]:
        return read_pair_table(self.pairs_file)

    def read_trajectory(self) -> Trajectory | None:
        """The trajectory of the longest segment; None if no frame had a place."""
        return _trajectory_if_any(self.trajectory_file)

    def read_ground_truth(self) -> Trajectory | None:
        """The truth that came with the source; None if there was none."""
        return _trajectory_if_any(self.ground_truth_file)


def _trajectory_if_any(path: Path) -> Trajectory | None:
    if not path.is_file() or all(line.startswith("#") for line in path.read_text(encoding="utf-8").splitlines()):
        return None
    return read_tum(path)


def _read_run_json(path: Path) -> RunInfo:
    if not path.is_file():
        raise SourceError(
            f"'{path.parent}' is no run folder (it has no run.json): give a folder that replay has written."
        )
    try:
        return _info_from(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SourceError(f"'{path}' cannot be used ({error}): repeat the replay.") from error


def _info_from(content: Mapping[str, Any]) -> RunInfo:
    def take(key: str, convert: Callable[[Any], Any], default: Any = None) -> Any:
        value = content.get(key, default)
        if value is None:
            raise ValueError(f"'{key}' is missing")
        return convert(value)

    return RunInfo(
        name=take("name", str),
        source=take("source", str),
        layout=take("layout", str, ""),
        modality=take("modality", Modality),
        matcher=take("matcher", str),
        config=take("config", dict),
        selection=take("selection", dict, {}),
        num_frames=take("num_frames", int),
        skipped=take("skipped", dict, {}),
        finished=take("finished", bool),
        wall_s=take("wall_s", float, 0.0),
        versions=take("versions", dict, {}),
        assumptions=take("assumptions", tuple, ()),
        truth_sigma_m=None if content.get("truth_sigma_m") is None else take("truth_sigma_m", float),
    )
