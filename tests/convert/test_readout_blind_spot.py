import pytest
import torch

from loopscale import InputError, run_loops
from loopscale.convert import from_readout_blind_spot
from loopscale.objective import NormPenalty, Weighted

VARIANTS = ["rmsnorm", "raw", "final_rmsnorm", "inter_loop_norm", "damped"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_every_loop_and_norms_match(golden, variant):
    model = golden.model(variant)
    with torch.no_grad():
        states = list(run_loops(model, golden.input_ids))
        logits = torch.stack([model.readout(z, k) for k, z in enumerate(states)])
    torch.testing.assert_close(logits, golden(variant, "logits"), atol=2e-4, rtol=0)
    norms = torch.stack([z.norm(dim=-1).mean() for z in states]).double()
    torch.testing.assert_close(norms, golden(variant, "norms"), rtol=1e-3, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_penalty_and_gradient_match(golden, variant):
    model = golden.model(variant)
    model.config.norm_penalty_coef = 0.01
    out = model(golden.input_ids, shift_labels=golden.labels, output_states=True)
    torch.testing.assert_close(out.loop_losses.mean(0), golden(variant, "ce"), atol=1e-5, rtol=0)
    penalty = NormPenalty(Weighted(1.0))(
        out.states, torch.ones_like(golden.labels, dtype=torch.bool), golden.labels.numel()
    )
    torch.testing.assert_close(penalty, golden(variant, "penalty"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.loss, golden(variant, "ce").mean() + 0.01 * golden(variant, "penalty"))
    out.loss.backward()
    attention = model.model.layers[0].self_attn
    gradient = torch.cat([p.weight.grad for p in (attention.q_proj, attention.k_proj, attention.v_proj)])
    torch.testing.assert_close(gradient, golden(variant, "grad_qkv0"), atol=1e-5, rtol=1e-3)


def test_a_missing_weight_is_named(golden):
    weights = {k: v for k, v in golden.weights.items() if k != "layers.1.ffn.w2.weight"}
    with pytest.raises(InputError, match=r"layers\.1\.ffn\.w2\.weight"):
        from_readout_blind_spot(weights, golden.meta)
