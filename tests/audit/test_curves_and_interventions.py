import pytest
import torch

from loopscale.audit import intervene, loop_curves

VARIANTS = ["rmsnorm", "raw", "final_rmsnorm", "inter_loop_norm", "damped"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_lemma_curves_match_the_released_code(golden, variant):
    loops = golden.meta["lemma_loops"]
    curves = loop_curves(golden.model(variant), [(golden.input_ids, golden.labels)], num_loops=loops)
    torch.testing.assert_close(torch.tensor(curves.scale).double(), golden(variant, "lemma_s"), rtol=1e-3, atol=0)
    a_sum = torch.tensor(curves.radial_increment).double() * golden.meta["d_model"]
    torch.testing.assert_close(a_sum, golden(variant, "lemma_a_sum"), rtol=1e-3, atol=1e-4)
    turns = torch.tensor(curves.angular_step).double()
    torch.testing.assert_close(turns, golden(variant, "lemma_du"), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "theirs, ours", [("none", "none"), ("remove_radial", "remove_radial"), ("freeze_loop1", "freeze_first")]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_interventions_match_the_released_code(golden, variant, theirs, ours):
    got = intervene(golden.model(variant), [(golden.input_ids, golden.labels)])
    expected = golden(variant, f"clamp_{theirs}_ce").double(), golden(variant, f"clamp_{theirs}_l2").double()
    torch.testing.assert_close(torch.tensor(got.cross_entropy[ours]).double(), expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(got.norm[ours]).double(), expected[1], rtol=1e-3, atol=0)
