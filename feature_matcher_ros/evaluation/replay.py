"""Replay: run the front-end over a recorded sequence and write down everything it says."""

from __future__ import annotations

import json
import math
import platform
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from feature_matcher_ros.config import FrontEndConfig, iterate_parameters
from feature_matcher_ros.datatypes import Frame, FrontEndResult
from feature_matcher_ros.errors import FrameError, OutputError
from feature_matcher_ros.evaluation.interruption import interruption_requests
from feature_matcher_ros.evaluation.match_video import MatchVideo
from feature_matcher_ros.evaluation.pair_table import PairTableWriter, row_from_result
from feature_matcher_ros.evaluation.rerun_recording import RerunRecording
from feature_matcher_ros.evaluation.run_folder import RunFolder
from feature_matcher_ros.evaluation.sequences import Selection, Sequence, open_sequence
from feature_matcher_ros.evaluation.topic_bag import TopicBag
from feature_matcher_ros.evaluation.trajectories import write_tum
from feature_matcher_ros.evaluation.trajectory_log import TrajectoryLog
from feature_matcher_ros.front_end import FrontEnd

Sink = Callable[[Frame, FrontEndResult], None]


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to write beside the table, the trajectory and the topics."""

    topics: bool = True
    video: bool = False
    rerun: bool = False


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What came of a replay; the same numbers stand in ``run.json``."""

    name: str
    modality: str
    num_frames: int
    status_counts: dict[str, int]
    skipped: dict[str, int]
    num_segments: int
    finished: bool
    wall_s: float


def replay(
    source: Path,
    output: Path,
    *,
    selection: Selection | None = None,
    config: FrontEndConfig | None = None,
    options: ReplayOptions | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ReplaySummary:
    """Run the front-end over ``source`` and write the run folder ``output``; a run that is there is replaced.

    SIGINT and SIGTERM end the run after the frame in work, a second one (``KeyboardInterrupt``) in the midst of it:
    everything up to then is complete and readable, and the summary says ``finished=False``.

    Raises:
        SourceError: the source cannot be read.
        OutputError: the output cannot be written; what was written before stays readable.
    """
    selection, config, options = selection or Selection(), config or FrontEndConfig(), options or ReplayOptions()
    if RunFolder(output).writes(source):
        raise OutputError(f"{source} belongs to the run in {output}, which would be replaced: choose another --output.")
    RunFolder(output).refuse_foreign()
    sequence, front_end = open_sequence(source, selection), FrontEnd(config)
    facts = _facts(source, selection, config, front_end, sequence)
    log, statuses, refused = TrajectoryLog(), Counter[str](), Counter[str]()
    begun, finished = time.perf_counter(), False

    def summary() -> ReplaySummary:
        return ReplaySummary(
            name=sequence.name,
            modality=sequence.modality.value,
            num_frames=statuses.total(),
            status_counts=dict(statuses),
            skipped=dict(sequence.skipped + refused),
            num_segments=log.num_segments,
            finished=finished,
            wall_s=round(time.perf_counter() - begun, 3),
        )

    try:
        output.mkdir(parents=True, exist_ok=True)
        RunFolder(output).clear()
        _write_run_json(output, facts, summary())
        if sequence.ground_truth is not None:
            write_tum(output / "ground_truth.tum", sequence.ground_truth)
        with interruption_requests() as interrupted, ExitStack() as stack:
            stack.callback(log.save, output)
            sinks = [log.write, *_open_sinks(stack, output, options)]
            finished = _run(front_end, sequence, sinks, statuses, refused, on_progress, interrupted)
        _write_run_json(output, facts, summary())
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write to {output} ({reason}): free space or choose another --output.") from error
    return summary()


def _open_sinks(stack: ExitStack, output: Path, options: ReplayOptions) -> list[Sink]:
    table = stack.enter_context(PairTableWriter(output / "pairs.csv"))
    sinks: list[Sink] = [lambda frame, result: table.write(row_from_result(result))]
    if options.topics:
        sinks.append(stack.enter_context(TopicBag(output / "topics")).write)
    if options.video:
        sinks.append(stack.enter_context(MatchVideo(output / "matches.mp4")).write)
    if options.rerun:
        sinks.append(stack.enter_context(RerunRecording(output / "recording.rrd")).write)
    return sinks


def _run(
    front_end: FrontEnd,
    sequence: Sequence,
    sinks: list[Sink],
    statuses: Counter[str],
    refused: Counter[str],
    on_progress: Callable[[int, int], None],
    interrupted: Callable[[], bool],
) -> bool:
    """Process frame after frame, counting by status and, where there is no result, by reason."""
    try:
        for frame in sequence.frames():
            if interrupted():
                return False
            try:
                result = front_end.process(frame)
            except FrameError as error:
                refused[error.reason] += 1
                continue
            for sink in sinks:
                sink(frame, result)
            statuses[result.status.value] += 1
            on_progress(statuses.total() + refused.total() + sequence.skipped.total(), len(sequence))
    except KeyboardInterrupt:
        return False
    return True


def _facts(
    source: Path, selection: Selection, config: FrontEndConfig, front_end: FrontEnd, sequence: Sequence
) -> dict[str, Any]:
    """What ``run.json`` says beside the outcome."""
    return {
        "source": str(source.resolve()),
        "selection": {name: _finite(value) for name, value in asdict(selection).items() if value is not None},
        # With the matcher that was run, where the configuration left the choice to the package.
        "config": {entry.path: _finite(entry.default) for entry in iterate_parameters(config)}
        | {"matcher.name": front_end.matcher.name},
        "matcher": front_end.matcher.name,
        "layout": sequence.info.layout,
        "assumptions": sequence.info.assumptions,
        "truth_sigma_m": sequence.info.truth_sigma_m,
        "versions": {
            "python": platform.python_version(),
            "feature_matcher_ros": version("feature_matcher_ros"),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "poselib": version("poselib"),
        },
    }


def _finite(value: Any) -> Any:
    """JSON knows no infinity, which a parameter or a duration may be."""
    return str(value) if value == math.inf else value


def _write_run_json(folder: Path, facts: dict[str, Any], summary: ReplaySummary) -> None:
    """Replace the file as a whole, so that a full disk or a killed process leaves the old one."""
    text = json.dumps({**facts, **asdict(summary)}, indent=2, default=str) + "\n"
    written = folder / "run.json.part"
    written.write_text(text, encoding="utf-8")
    written.replace(folder / "run.json")
