"""The commands about networks, with weights that a folder publishes instead of a server."""

import hashlib
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import feature_matcher

from feature_matcher_ros import cli_networks
from feature_matcher_ros.config import FrontEndConfig, MatcherConfig, override
from feature_matcher_ros.datatypes import StopReason
from feature_matcher_ros.matchers import create_matcher, lightglue_rules
from feature_matcher_ros.models import weights as weights_module
from feature_matcher_ros.models.lightglue_config import LightGlueConfig
from feature_matcher_ros.models.weights import PublishedWeights


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedWeights:
    """The only weights there are; the cache is empty."""
    source = tmp_path / "server" / "net.pth"
    source.parent.mkdir()
    source.write_bytes(b"tensors" * 1000)
    entry = PublishedWeights("net", source.as_uri(), hashlib.sha256(source.read_bytes()).hexdigest(), "BSD-3-Clause")
    for module in (cli_networks, weights_module):
        monkeypatch.setattr(module, "PUBLISHED_WEIGHTS", (entry,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return entry


def test_weights_are_listed_pulled_and_verified(
    published: PublishedWeights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = feature_matcher(capsys, "weights", "list")
    assert code == 0 and published.url in out and "BSD-3-Clause" in out and "pulled " not in out
    assert "no weights lie in" in feature_matcher(capsys, "weights", "verify")[1]
    code, out, _ = feature_matcher(capsys, "weights", "pull", "net")
    assert code == 0 and "licence of the weights: BSD-3-Clause" in out
    assert "pulled " in feature_matcher(capsys, "weights", "list")[1]
    assert "net.pth is as published" in feature_matcher(capsys, "weights", "verify")[1]
    next((tmp_path / "cache").rglob("net.pth")).write_bytes(b"tampered")
    for arguments in (("weights", "verify"), ("weights", "pull", "net")):
        code, _, err = feature_matcher(capsys, *arguments)
        assert code == 1 and "truncated or was changed" in err and err.count("\n") == 1


def test_export_without_torch_or_weights_is_one_sentence(
    published: PublishedWeights, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = feature_matcher(capsys, "weights", "verify", "other")
    assert code == 1 and "there are no published weights 'other': choose one of net" in err
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.startswith("feature_matcher_ros.export")]:
            patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, "torch", None)
        code, _, err = feature_matcher(capsys, "export", "net")
    assert code == 1 and "pip install 'feature_matcher_ros[torch]'" in err and err.count("\n") == 1


def test_export_of_weights_that_were_not_pulled_says_how_to_pull_them(
    published: PublishedWeights, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    code, _, err = feature_matcher(capsys, "export", "net")
    assert code == 1 and "run feature-matcher weights pull net" in err and err.count("\n") == 1


def test_the_licence_of_a_local_file_is_named_at_export_and_said_at_first_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    from random_network import write_random_network

    weights = write_random_network(tmp_path / "random", LightGlueConfig(32, 16, 2, 1)).rename(tmp_path / "own.pth")
    for number, (licence, level) in enumerate([("MIT", logging.INFO), ("for friends only", logging.WARNING)]):
        own = weights.rename(tmp_path / f"own{number}.pth")
        code, out, _ = feature_matcher(capsys, "export", own, "-o", tmp_path, "--licence", licence)
        assert code == 0 and f"licence of the weights: {licence}" in out
        weights, folder = own, tmp_path / f"own{number}"
        assert json.loads((folder / "manifest.json").read_text())["licence"] == licence
        caplog.clear()
        images = [str(tmp_path / "random.png")] * 2
        cv2.imwrite(images[0], np.random.default_rng(0).integers(0, 255, (96, 128), np.uint8))
        settings = ["extractor.name=orb", "matcher.name=lightglue", f"matcher.graphs={folder}"]
        words = [word for setting in settings for word in ("--set", setting)]
        for use in range(2):
            code, out, err = feature_matcher(capsys, "match", *images, "-o", tmp_path / "matches.png", *words)
            assert "licence" not in err
            assert out.count(f"licence of the weights own{number}.pth: {licence}") == (use == 0)
        said = [record for record in caplog.records if "licence" in record.getMessage()]
        assert [record.levelno for record in said] == [level]


def test_weights_that_cannot_be_exported_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    own = tmp_path / "own.pth"
    for content, sentence in (
        ({"layer.weight": torch.tensor([1.0, float("nan")])}, f"'layer.weight' of {own} is NaN or infinite"),
        ({"layer.weight": Path("code")}, "it is no torch file of tensors alone"),
    ):
        torch.save(content, own)
        code, _, err = feature_matcher(capsys, "export", own, "-o", tmp_path)
        assert code == 1 and sentence in err and err.count("\n") == 1
    code, _, err = feature_matcher(capsys, "export", own, tmp_path / "other" / "own.safetensors", "-o", tmp_path)
    assert code == 1 and f"two of the weights would be written to {own.with_suffix('')}" in err


def test_calibrated_thresholds_stay_with_the_graphs_until_the_configuration_names_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    from random_network import write_random_network

    weights = write_random_network(tmp_path / "random", LightGlueConfig(256, 16, 2, 3)).rename(tmp_path / "own.pth")
    calibration = tmp_path / "calibration.yaml"
    chosen = "{confidence_thresholds: [0.001, 0.5, 1.0], matchability_thresholds: [0.0, 1.0, 0.0]}"
    calibration.write_text(f"/**: {{ros__parameters: {{matcher: {chosen}}}}}")
    code, _, err = feature_matcher(capsys, "export", weights, "-o", tmp_path, "--calibration", calibration)
    assert code == 0, err
    config = override(FrontEndConfig(), {"extractor.name": "orb", "matcher.name": "lightglue"})
    noise = np.random.default_rng(0).integers(0, 255, (96, 128), np.uint8)
    for thresholds, layers_run in (((), 1), ((1.0, 0.001, 1.0), 2), ((1.0, 1.0, 1.0), 2)):
        values = {"matcher.graphs": str(tmp_path / "own"), "matcher.confidence_thresholds": thresholds}
        matcher = create_matcher(override(config, values))
        features = matcher.extract(noise)
        matches = matcher.match(features, features)
        assert matches.layers_run == layers_run
        assert (matches.stop_reason is StopReason.NOTHING_MATCHABLE) == (thresholds == (1.0, 1.0, 1.0))
    calibration.write_text("/**: {ros__parameters: {matcher: {confidence_thresholds: [0.5, 1.0]}}}")
    code, _, err = feature_matcher(capsys, "export", weights, "-o", tmp_path, "--calibration", calibration)
    assert code == 1 and "2 confidence thresholds do not fit" in err and err.count("\n") == 1


def test_a_published_licence_stays_what_it_is(
    published: PublishedWeights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    from random_network import write_random_network

    weights = write_random_network(tmp_path / "random", LightGlueConfig(32, 16, 2, 1))
    entry = replace(published, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights_module, "PUBLISHED_WEIGHTS", (entry,))
        code, _, err = feature_matcher(capsys, "export", weights, "-o", tmp_path, "--licence", "MIT")
        assert code == 1 and "whose licence is BSD-3-Clause; leave out --licence" in err and err.count("\n") == 1
        code, out, _ = feature_matcher(capsys, "export", weights, "-o", tmp_path, "--licence", "BSD-3-Clause")
    assert code == 0 and "licence of the weights: BSD-3-Clause" in out


def test_the_licence_of_pulled_weights_is_known_without_a_checksum(
    published: PublishedWeights, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SuperGlue's terms must reach whoever uses the graphs, though nobody published a checksum."""
    pytest.importorskip("torch", reason="the export needs torch: pip install feature_matcher_ros[torch]")
    from random_network import write_random_network

    weights = write_random_network(tmp_path / "random", LightGlueConfig(32, 16, 2, 1))
    entry = replace(published, url=weights.as_uri(), sha256=None, licence="for research only")
    for module in (cli_networks, weights_module):
        monkeypatch.setattr(module, "PUBLISHED_WEIGHTS", (entry,))
    code, out, _ = feature_matcher(capsys, "weights", "pull", "net")
    assert code == 0 and "licence of the weights: for research only" in out
    code, out, _ = feature_matcher(capsys, "export", "net", "-o", tmp_path)
    assert code == 0 and "licence of the weights: for research only" in out
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert (manifest["weights"], manifest["licence"], manifest["source"]) == ("net", entry.licence, entry.url)
    code, _, err = feature_matcher(capsys, "export", "net", "-o", tmp_path, "--licence", "MIT")
    assert code == 1 and "whose licence is for research only; leave out --licence" in err


def test_a_rule_of_the_matcher_can_be_switched_off() -> None:
    rules = lightglue_rules(MatcherConfig())
    assert (rules.stop.depth_confidence, rules.prune.width_confidence) == (0.95, 0.99)
    assert rules.budget.match_budget_ms is None
    rules = lightglue_rules(MatcherConfig(depth_confidence=1.0, width_confidence=1.0, match_budget_ms=20.0))
    assert rules.stop.depth_confidence is None and rules.prune.width_confidence is None
    assert rules.budget.match_budget_ms == 20.0
