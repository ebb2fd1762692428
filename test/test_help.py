"""What every command says of itself, on a terminal of 80 columns."""

import pytest
import typer
from command_line import feature_matcher

from feature_matcher_ros.cli import app

ROOT = typer.main.get_command(app)
WEIGHTS = ROOT.commands["weights"]  # type: ignore[attr-defined]
COMMANDS = {(): ROOT, ("weights",): WEIGHTS}
COMMANDS |= {(name,): command for name, command in ROOT.commands.items()}  # type: ignore[attr-defined]
COMMANDS |= {("weights", name): command for name, command in WEIGHTS.commands.items()}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nothing_is_cut_off_at_80_columns(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = feature_matcher(capsys, *words, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert not [line for line in out.splitlines() if line.endswith(("…", "...")) and not line.startswith("Usage: ")]
    text = " ".join(out.split())
    for option in COMMANDS[words].params:
        assert all(name in out for name in option.opts if name.startswith("-")), option.opts
        assert " ".join((getattr(option, "help", None) or "").split()) in text
