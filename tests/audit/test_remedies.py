"""A remedy speaks of the model that is asked about: our settings, somebody else's code, a model of one loop."""

import pytest
import torch

from loopscale.audit import audit, static_verdict, static_warning
from tests.helpers import tiny_config, tiny_model

IDS = torch.randint(1, 31, (4, 13), generator=torch.Generator().manual_seed(0))
OUR_SETTINGS = ("norm_penalty_coef", "readout:", "recurrence:", "final_rmsnorm")


class Foreign:
    """The same functions in a class that is none of ours."""

    def __init__(self, model):
        self.num_loops = model.num_loops
        self.embed, self.step, self.carry, self.readout = model.embed, model.step, model.carry, model.readout


def test_our_model_is_answered_in_its_settings():
    report = audit(tiny_model(), [IDS]).coordinates["scale"]
    assert report.verdict == "blind_spot" and all(word in report.remedy for word in OUR_SETTINGS)
    assert report.remedy == static_verdict(tiny_config())["scale"].remedy


def test_somebody_elses_model_is_not_answered_in_ours():
    report = audit(Foreign(tiny_model()), [IDS]).coordinates["scale"]
    assert report.verdict == "blind_spot" and "in carry" in report.remedy
    assert not any(word in report.remedy for word in OUR_SETTINGS)


@pytest.mark.parametrize("readout", ["rmsnorm", "layernorm", "final_rmsnorm"])
def test_a_model_of_one_loop_is_not_told_of_a_loop(readout):
    config = tiny_config(num_loops=1, readout=readout)
    warning = static_warning(config)
    assert warning and "loop" not in warning and "recurrence" not in warning
    report = audit(tiny_model(num_loops=1, readout=readout), [IDS]).coordinates["scale"]
    assert "loop" not in (report.remedy or "") and report.remedy == static_verdict(config)["scale"].remedy
