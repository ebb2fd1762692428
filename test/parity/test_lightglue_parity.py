"""Our network and its graphs against stored outputs of the published code, in every mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install feature_matcher_ros[torch]")
pytest.importorskip("onnx", reason="parity of graphs needs onnx: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.datatypes import Features, Image, Matches  # noqa: E402
from feature_matcher_ros.export.to_onnx import Origin, export_lightglue  # noqa: E402
from feature_matcher_ros.export.to_torch import lightglue_by_torch  # noqa: E402
from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule  # noqa: E402
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules  # noqa: E402
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, open_lightglue  # noqa: E402
from feature_matcher_ros.models.checkpoint import read_checkpoint  # noqa: E402
from feature_matcher_ros.models.lightglue import LightGlueModel, lightglue_from_checkpoint  # noqa: E402

pytestmark = pytest.mark.data

Reference = Mapping[str, np.ndarray]
HOW = ("torch", "onnx")
MODES = {"full": (None, None), "adaptive": (0.95, 0.99), "depth_only": (0.95, None), "width_only": (None, 0.99)}
FULL = LightGlueRules(StopRule(None), PruneRule(None))


class NoExtractor:
    name = "none"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        raise NotImplementedError


def open_in_both_ways(model: LightGlueModel, folder: Path) -> dict[str, LightGlueGraphs]:
    export_lightglue(model, Origin("reference", "-", "-"), folder)
    return {"torch": lightglue_by_torch(model), "onnx": open_lightglue(folder, num_threads=1)}


@pytest.fixture(scope="module")
def nine_layers(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LightGlueGraphs]:
    weights = shared_data / "reference" / "lightglue_aliked_seeded" / "lightglue_aliked_seed0_fp16.pth"
    return open_in_both_ways(lightglue_from_checkpoint(read_checkpoint(weights)), tmp_path_factory.mktemp("nine"))


@pytest.fixture(scope="module")
def lighter(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LightGlueGraphs]:
    weights = shared_data / "weights" / "xfeat_lighterglue_L3.pt"
    return open_in_both_ways(lightglue_from_checkpoint(read_checkpoint(weights)), tmp_path_factory.mktemp("lighter"))


def load(shared_data: Path, name: str) -> Reference:
    with np.load(shared_data / "reference" / f"{name}.npz") as stored:
        return dict(stored)


def features_of(stored: Reference, image: int) -> Features:
    return Features(
        stored[f"kpts{image}"],
        stored[f"kscores{image}"],
        stored[f"desc{image}"],
        tuple(map(int, stored[f"size{image}"])),
    )


def match(graphs: LightGlueGraphs, stored: Reference, rules: LightGlueRules) -> Matches:
    return LightGlue(NoExtractor(), graphs, rules).match(features_of(stored, 0), features_of(stored, 1))


def assert_same_matches(matches: Matches, stored: Reference, prefix: str) -> None:
    assert matches.indices is not None
    partners = [np.full(len(stored[f"{prefix}matches{image}"]), -1) for image in (0, 1)]
    for image in (0, 1):
        partners[image][matches.indices[:, image]] = matches.indices[:, 1 - image]
        assert np.mean(partners[image] == stored[f"{prefix}matches{image}"]) >= 0.995
    common = stored[f"{prefix}matches0"][matches.indices[:, 0]] == matches.indices[:, 1]
    published = stored[f"{prefix}mscores0"][matches.indices[:, 0]]
    assert np.abs(matches.scores - published)[common].max() < 1e-3


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", ["fr3_512", "scannet0_512", "fr3_1024"])
def test_nine_layers_in_every_mode(
    nine_layers: dict[str, LightGlueGraphs], shared_data: Path, pair: str, mode: str, how: str
) -> None:
    stored = load(shared_data, f"lightglue_aliked_seeded/{pair}")
    rules = LightGlueRules(StopRule(MODES[mode][0]), PruneRule(MODES[mode][1]))
    matches = match(nine_layers[how], stored, rules)
    assert matches.layers_run == stored[f"{mode}_stop"]
    assert np.array_equal(matches.points_per_stage, stored[f"{mode}_n_per_layer"])
    assert_same_matches(matches, stored, f"{mode}_")


@pytest.mark.parametrize("mode", ["adaptive", "width_only"])
def test_the_same_points_are_kept(nine_layers: dict[str, LightGlueGraphs], shared_data: Path, mode: str) -> None:
    """The published code counts for each point the layers that it was kept after."""
    stored = load(shared_data, "lightglue_aliked_seeded/fr3_512")
    matcher = _Watched(nine_layers["onnx"])
    rules = LightGlueRules(StopRule(MODES[mode][0]), PruneRule(MODES[mode][1]))
    match(matcher.graphs, stored, rules)
    counts = np.concatenate((stored[f"{mode}_prune0"], stored[f"{mode}_prune1"]))
    for stage, entered in enumerate(matcher.entered, start=1):
        assert np.array_equal(entered, np.flatnonzero(counts >= stage))


class _Watched:
    """Writes down which of all points entered each stage."""

    def __init__(self, graphs: LightGlueGraphs) -> None:
        self.entered: list[np.ndarray] = []
        stages = [_WatchedRuntime(stage.layers, self.entered) for stage in graphs.stages]
        self.graphs = LightGlueGraphs(
            graphs.config,
            graphs.embed,
            tuple(type(old)(old.layers_done, new, old.head) for old, new in zip(graphs.stages, stages, strict=True)),
        )


class _WatchedRuntime:
    def __init__(self, runtime, entered: list[np.ndarray]) -> None:
        self._runtime, self._entered = runtime, entered
        self.name, self.spec = runtime.name, runtime.spec

    def run(self, inputs):
        before = self._entered[-1] if self._entered else np.arange(len(inputs["state"]))
        self._entered.append(before[np.concatenate((inputs["rows0"], inputs["rows1"]))])
        return self._runtime.run(inputs)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pair", ["fr3_512", "kitti_512", "fr3_1024", "kitti_1024", "kitti_2048"])
def test_lighter_network_of_xfeat(lighter: dict[str, LightGlueGraphs], shared_data: Path, pair: str, how: str) -> None:
    stored = load(shared_data, f"xfeat_lighterglue_L3/{pair}")
    matches = match(lighter[how], stored, FULL)
    assert matches.layers_run == stored["stop"]
    assert_same_matches(matches, stored, "")


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "bfloat16"), *(pytest.param("cuda", half, marks=pytest.mark.gpu) for half in ("float16", "bfloat16"))],
)
def test_half_precision_finds_nearly_the_same(shared_data: Path, device: str, precision: str) -> None:
    """Trained weights; what differs are pairs near the least score, and points whose two best partners are alike."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    stored = load(shared_data, "xfeat_lighterglue_L3/fr3_512")
    model = lightglue_from_checkpoint(read_checkpoint(shared_data / "weights" / "xfeat_lighterglue_L3.pt"))
    matches = match(lightglue_by_torch(model, device=device, precision=precision), stored, FULL)
    assert matches.indices is not None
    found = set(map(tuple, matches.indices.tolist()))
    published = {(first, second) for first, second in enumerate(stored["matches0"].tolist()) if second >= 0}
    share = len(found & published) / len(found | published)
    assert share >= (0.97 if precision == "float16" else 0.85), share


def test_states_are_the_published_ones(shared_data: Path) -> None:
    stored = load(shared_data, "lightglue_aliked_seeded/fr3_512")
    weights = shared_data / "reference" / "lightglue_aliked_seeded" / "lightglue_aliked_seed0_fp16.pth"
    model = lightglue_from_checkpoint(read_checkpoint(weights))
    size = torch.tensor([640.0, 480.0])
    with torch.inference_mode():
        embedded = [
            model.embed(torch.tensor(stored[f"desc{i}"]), (torch.tensor(stored[f"kpts{i}"]) - size / 2) / 320)
            for i in (0, 1)
        ]
        (state0, rotation0), (state1, rotation1) = embedded
        for layer in range(9):
            state0, state1 = model.layer(layer, state0, state1, rotation0, rotation1)
            assert np.abs(state0[:16].numpy() - stored["full_hid0_first16"][layer]).max() < 1e-4
            assert np.abs(state1[:16].numpy() - stored["full_hid1_first16"][layer]).max() < 1e-4
