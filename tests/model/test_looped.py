import functools

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaForCausalLM

from loopscale import Looped, LoopedConfig, LoopedForCausalLM, run_loops
from loopscale.model import CARRIES, PRESETS, READOUTS, preset_config
from tests.helpers import tiny_model

IDS = torch.arange(40).view(2, 20) % 31


@pytest.mark.parametrize(
    ("preset", "millions"), [("laptop", 0.57), ("44m", 43.9), ("129m", 128.8), ("fineweb-10m", 9.4)]
)
def test_parameter_counts(preset, millions):
    with torch.device("meta"):
        model = LoopedForCausalLM(preset_config(preset))
    assert round(model.num_parameters() / 1e6, 2 if millions < 1 else 1) == millions


@pytest.mark.parametrize("name", PRESETS)
def test_presets_without_a_coda_have_the_papers_loops_and_initialisation_and_all_a_tied_head(name):
    config = preset_config(name)
    whole = config.num_coda_layers > 0
    assert config.tie_word_embeddings and (config.num_loops == 4, config.init == "normal") == (not whole, whole)


def test_presets_with_a_coda_run_in_the_form_of_their_families():
    huginn, parcae, small = (preset_config(name) for name in ("huginn-laptop", "parcae-laptop", "fineweb-10m"))
    assert (huginn.injection, huginn.residual, huginn.coda_input) == ("linear", "post_add", "readout")
    assert (parcae.injection, parcae.residual_part, parcae.coda_input) == ("diagonal", "pre", "linear")
    with torch.device("meta"):
        assert LoopedForCausalLM(small).num_parameters() <= 10_000_000


def test_loops_equal_tied_copies_of_the_stack_in_a_plain_llama():
    model = tiny_model(position_embedding="rope", num_loops=3).double()
    cfg = model.config
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=cfg.vocab_size,
            hidden_size=cfg.hidden_size,
            intermediate_size=cfg.intermediate_size,
            num_hidden_layers=cfg.num_stack_layers * 3,
            num_attention_heads=cfg.num_attention_heads,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    ).double()
    state = {
        "model.embed_tokens.weight": model.lm_head.weight,
        "lm_head.weight": model.lm_head.weight,
        "model.norm.weight": model.readout_norm.norm.weight,
    }
    for name, weight in model.model.layers.state_dict().items():
        i, rest = name.split(".", 1)
        state |= {f"model.layers.{int(i) + k * cfg.num_stack_layers}.{rest}": weight for k in range(3)}
    llama.load_state_dict(state)
    # their RMSNorm computes in float32 whatever the input, ours in the input's precision
    torch.testing.assert_close(model(IDS).logits, llama.eval()(IDS).logits, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("recurrence", CARRIES)
def test_forward_is_the_four_verbs(readout, recurrence):
    model = tiny_model(readout=readout, recurrence=recurrence)
    assert isinstance(model, Looped)
    out = model(IDS, output_states=True, num_loops=5)
    states = list(run_loops(model, IDS, 5))
    assert len(states) == 5
    for mine, theirs in zip(out.states, states, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(out.logits, model.readout(states[-1], 4))


def test_final_rmsnorm_normalises_at_the_last_trained_loop_only():
    model = tiny_model(readout="final_rmsnorm", num_loops=3)
    z = torch.randn(1, 2, 16)
    norm = model.readout_norm.norm
    for k, expected in enumerate([z, z, norm(z), z]):
        torch.testing.assert_close(model.readout_state(z, k), expected)
    torch.testing.assert_close(model.readout_state(z, 0, last=True), norm(z))


@pytest.mark.parametrize(
    "overrides", [{}, {"tie_word_embeddings": False}, {"exit_gate": True}, {"recurrence": "damped"}]
)
def test_save_and_load(tmp_path, overrides):
    model = tiny_model(**overrides)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=0)
    tied = again.lm_head.weight is again.model.embed_tokens.weight
    assert tied == model.config.tie_word_embeddings


def test_another_depth_at_loading_keeps_the_trained_one(tmp_path):
    model = tiny_model(readout="final_rmsnorm", num_loops=3)
    model.save_pretrained(tmp_path)
    shallow = AutoModelForCausalLM.from_pretrained(tmp_path, num_loops=2)
    assert (shallow.num_loops, shallow.config.trained_loops) == (2, 3)
    torch.testing.assert_close(shallow(IDS).logits, model(IDS, num_loops=2).logits)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("position_embedding", ["learned", "rope"])
def test_causal_by_default_and_padding_does_not_leak(attention, position_embedding):
    model = tiny_model(position_embedding=position_embedding, num_key_value_heads=1)
    model.set_attn_implementation(attention)
    changed = IDS.clone()
    changed[:, -1] = 0
    close = functools.partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
    close(model(changed).logits[:, :-1], model(IDS).logits[:, :-1])
    close(list(run_loops(model, changed))[-1][:, :-1], list(run_loops(model, IDS))[-1][:, :-1])
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), IDS], 1)
    mask = torch.cat([torch.zeros(2, 3), torch.ones(2, 20)], 1).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(padded, attention_mask=mask, position_ids=positions).logits[:, 3:]
    close(logits, model(IDS).logits)


def test_labels_are_shifted_and_shift_labels_are_not():
    model = tiny_model(norm_penalty_coef=0.01)
    shifted = torch.nn.functional.pad(IDS[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(model(IDS, labels=IDS).loss, model(IDS, shift_labels=shifted).loss)


def test_a_tuple_begins_with_the_loss_or_the_logits():
    model, ids = tiny_model(), torch.arange(20).view(2, 10)
    assert model(ids)[0].shape == (2, 10, 31)
    loss, logits, *_ = model(ids, labels=ids, return_dict=False)
    assert loss.shape == () and logits.shape == (2, 10, 31)


def test_exit_probabilities_sum_to_one_under_autocast():
    model = tiny_model(supervision="exit_gate")
    with torch.autocast("cpu", torch.bfloat16):
        p = model(torch.arange(20).view(2, 10)).exit_probabilities
    assert p.dtype == torch.float32
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 10))


def test_parts_of_a_step_add_up_to_the_whole():
    model = tiny_model(norm_penalty_coef=0.01, supervision="exit_gate").double()
    labels = IDS.clone()
    labels[0, 5:] = -100
    items = (labels[:, 1:] != -100).sum()
    whole = model(IDS, labels=labels)
    parts = [model(IDS[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=items) for i in range(2)]
    torch.testing.assert_close(sum(p.loss for p in parts), whole.loss)
    torch.testing.assert_close(torch.cat([p.loop_losses for p in parts]), whole.loop_losses)


def test_unsupervised_exits_are_measured_without_gradient_or_left_out():
    model = tiny_model(supervision="terminal")
    out = model(IDS, labels=IDS)
    torch.testing.assert_close(out.loss, out.loop_losses[:, -1].mean())
    assert not out.loop_losses.isnan().any()
    only = model(IDS, labels=IDS, supervised_exits_only=True)
    assert only.loop_losses.isnan().tolist() == [[True, True, False]] * 2 and only.logits is None
    torch.testing.assert_close(only.loss, out.loss)


def test_checkpointed_loops_give_the_same_gradients():
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(1)
        model = tiny_model(dropout=0.1).train()
        model.checkpoint_loops = checkpointed
        torch.manual_seed(2)
        model(IDS, labels=IDS).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients)


def saved_bytes(model, num_loops):
    """Return the bytes that one forward pass keeps for the backward pass, parameters aside."""
    parameters = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x  # alive, so that its address stays its own
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = model(IDS, labels=IDS, num_loops=num_loops).loss
    assert loss.requires_grad
    return sum(x.untyped_storage().nbytes() for address, x in kept.items() if address not in parameters)


def test_a_checkpointed_loop_keeps_its_state_and_the_gradient_of_its_exit_alone():
    model = tiny_model().train()
    state = IDS.numel() * model.config.hidden_size * 4  # bytes

    def per_loop():
        return saved_bytes(model, 5) - saved_bytes(model, 4)

    assert per_loop() > 10 * state
    model.checkpoint_loops = True
    assert per_loop() == 2 * state


def test_seeds_make_the_same_model_and_init_is_torchs():
    torch.manual_seed(5)
    a = tiny_model()
    torch.manual_seed(5)
    b = tiny_model()
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    big = LoopedForCausalLM(LoopedConfig(vocab_size=500, hidden_size=64, num_stack_layers=1, num_attention_heads=2))
    assert big.model.embed_tokens.weight.std().item() == pytest.approx(1, abs=0.02)
    bound = big.model.layers[0].mlp.up_proj.weight.abs().max()
    assert 0.12 < bound <= 0.125  # 1 / sqrt(64)
    small = LoopedForCausalLM(LoopedConfig(vocab_size=500, hidden_size=64, num_attention_heads=2, init="normal"))
    assert small.model.embed_tokens.weight.std().item() == pytest.approx(0.02, abs=0.001)


def test_a_batch_without_a_label_has_no_loss_and_no_gradient():
    model, nothing = tiny_model().train(), torch.full((2, 8), -100)
    for count in (None, 0, torch.tensor(0)):
        out = model(torch.ones(2, 8, dtype=torch.long), labels=nothing, num_items_in_batch=count)
        out.loss.backward()
        assert out.loss == 0 and all(p.grad is None or not p.grad.any() for p in model.parameters())
