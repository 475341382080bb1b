"""PEFT's adapters on any layer: they learn, are heard everywhere, and merge, save and load."""

import pytest
import torch

from loopscale.audit import ScaleMonitor
from loopscale.decode import speculative_generate
from tests.helpers import tiny_model

peft = pytest.importorskip("peft")
pytestmark = [  # of peft on this transformers, and of tied weights
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]

IDS = torch.arange(40).view(2, 20) % 31
TARGETS = {
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "feed-forward": ["gate_proj", "up_proj", "down_proj"],
    "head": ["lm_head"],
    "embedding": ["embed_tokens"],
}


def adapted(targets, **overrides):
    torch.manual_seed(0)
    model = tiny_model(tie_word_embeddings=False, **overrides)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=targets, init_lora_weights=False)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("where", TARGETS)
def test_an_adapter_learns_is_decoded_and_merges(where, tmp_path):
    model = adapted(TARGETS[where])
    logits = model(IDS).logits
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    text = model.generate(IDS[:1, :6], max_new_tokens=8, do_sample=False)
    assert torch.equal(speculative_generate(model, IDS[:1, :6], 8).sequences, text)
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    again = peft.PeftModel.from_pretrained(tiny_model(tie_word_embeddings=False), tmp_path).eval()
    torch.testing.assert_close(again(IDS).logits, logits)
    torch.testing.assert_close(again.merge_and_unload()(IDS).logits, logits, atol=1e-4, rtol=1e-4)


def test_the_monitor_reads_an_adapted_model(tmp_path):
    from tests.train.test_stock_trainer import readings, stock_trainer

    trainer = stock_trainer(tmp_path, adapted(["q_proj"]), [ScaleMonitor(every=1)])
    trainer.train()
    assert [line["step"] for line in readings(trainer)] == [1, 2]
