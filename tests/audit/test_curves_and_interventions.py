import pytest
import torch

from loopscale.audit import intervene, loop_curves

VARIANTS = ["rmsnorm", "raw", "final_rmsnorm", "inter_loop_norm", "damped"]


class GoldenInputs:
    """A golden model that always reads the golden tokens: their labels are not the next tokens, as a batch has them."""

    def __init__(self, golden, variant):
        self.model, self.input_ids = golden.model(variant), golden.input_ids
        self.num_loops, self.step = self.model.num_loops, self.model.step
        self.carry, self.readout = self.model.carry, self.model.readout
        self.batches = [torch.cat([golden.labels[:, :1], golden.labels], dim=1)]

    def embed(self, input_ids):
        return self.model.embed(self.input_ids)


@pytest.mark.parametrize("variant", VARIANTS)
def test_lemma_curves_match_the_released_code(golden, variant):
    model = GoldenInputs(golden, variant)
    loops = golden.meta["lemma_loops"]
    curves = loop_curves(model, model.batches, num_loops=loops)
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
    model = GoldenInputs(golden, variant)
    got = intervene(model, model.batches)
    expected = golden(variant, f"clamp_{theirs}_ce").double(), golden(variant, f"clamp_{theirs}_l2").double()
    torch.testing.assert_close(torch.tensor(got.cross_entropy[ours]).double(), expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(got.norm[ours]).double(), expected[1], rtol=1e-3, atol=0)
