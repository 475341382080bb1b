"""A kill leaves what is on the disk at that moment: runs gone on from there end as one that nobody killed.

What a kill leaves is copied just before operations on files, a copy for each kind of them; `benchmarks.trials` kills.
"""

import shutil

import pytest
import torch

from benchmarks.trials.operations import Operations, kind_of
from benchmarks.trials.subjects import CLOCK, tiny_run
from loopscale.train import train

KINDS = ("run.json", "checkpoint written", "checkpoint moved", "rotation", "final save", "training.json")


def outcome(trained):
    weights = torch.cat([p.detach().flatten() for p in trained.model.parameters()])
    return weights, [{key: value for key, value in line.items() if not CLOCK.search(key)} for line in trained.history]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return what came out of a whole run, its place, and what a kill at the last operation of each kind leaves."""
    folder = tmp_path_factory.mktemp("kills")
    place, left = folder / "place", folder / "left"
    place.mkdir()

    def copy(number, operation):
        shutil.rmtree(left / kind_of(operation), ignore_errors=True)
        shutil.copytree(place, left / kind_of(operation))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCALE_CACHE", str(place / "cache"))
        operations = Operations(place, copy)
        operations.start()
        try:
            whole = train(tiny_run(place, save_every=3), quiet=True)
        finally:
            operations.on = False
        yield outcome(whole), place, left


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_changes_nothing(killed, kind):
    (weights, history), place, left = killed
    shutil.rmtree(place)
    shutil.copytree(left / kind, place)
    resumed_weights, resumed_history = outcome(train(tiny_run(place, save_every=3), quiet=True))
    assert torch.equal(resumed_weights, weights) and resumed_history == history
    expected = {"config.json", "generation_config.json", "manifest.json", "model.safetensors", "run.json"}
    kept = {path.name for path in (place / "run").iterdir()}
    assert kept == expected | {"README.md", "tokenizer.json", "tokenizer_config.json", "training.json"}
