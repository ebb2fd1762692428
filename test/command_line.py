"""The command line, run in the process of the test."""

import sys
from pathlib import Path

import pytest

from feature_matcher_ros.cli import main


def feature_matcher(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run ``feature-matcher`` and return its exit code, stdout and stderr."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["feature-matcher", *map(str, arguments)])
        main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err
