"""What the live node saves when it is asked to: its parameters, its surroundings, and how every camera is doing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_matcher_ros.errors import OutputError
from feature_matcher_ros.ros.doctor import environment_rows


def save_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write a report as JSON into a folder, which is made, under a name that holds the time.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"written": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "environment": dict(environment_rows()), **report}
    path = folder / f"feature_matcher_{time.strftime('%Y%m%d_%H%M%S')}_{time.time_ns() % 1_000_000_000:09d}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the report {path} cannot be written ({error}): set node.report_folder to one that can."
        ) from error
    return path
