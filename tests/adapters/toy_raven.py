"""A checkpoint's own code, as a Huginn brings it: its public methods, and its habits that transformers 5 breaks."""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


class RavenConfig(PreTrainedConfig):
    model_type = "huginn_raven"

    def __init__(self, n_embd=16, vocab_size=29, block_size=24, mean_recurrence=4, tie_embeddings=True, **kwargs):
        self.n_embd, self.vocab_size, self.block_size = n_embd, vocab_size, block_size
        self.mean_recurrence, self.tie_embeddings = mean_recurrence, tie_embeddings
        super().__init__(tie_word_embeddings=tie_embeddings, **kwargs)


class Block(nn.Module):
    """Causal mean of the past and a linear map; a norm of the whole stream at its end."""

    def __init__(self, size):
        super().__init__()
        self.mix, self.norm = nn.Linear(size, size), nn.RMSNorm(size)

    def forward(self, x, freqs_cis):
        past = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return self.norm(x + torch.tanh(self.mix(past + freqs_cis)))


class RavenForCausalLM(PreTrainedModel):
    config_class = RavenConfig
    _tied_weights_keys = ["lm_head.weight"]  # noqa: RUF012 (as written for transformers 4)

    def __init__(self, config):
        super().__init__(config)
        size = config.n_embd
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, size),
                "prelude": Block(size),
                "adapter": nn.Linear(2 * size, size),
                "core_block": Block(size),
                "coda": Block(size),
                "ln_f": nn.RMSNorm(size),
            }
        )
        self.lm_head = nn.Linear(size, config.vocab_size, bias=False)
        self.register_buffer("freqs_cis", torch.linspace(0, 1, config.block_size)[None, :, None], persistent=True)
        if config.tie_embeddings:
            self.tie_weights()
        self.post_init()

    def get_input_embeddings(self):
        return self.transformer.wte

    def get_output_embeddings(self):
        return self.lm_head

    def embed_inputs(self, input_ids):
        freqs = self.freqs_cis[:, : input_ids.shape[1]]
        return self.transformer["prelude"](self.transformer["wte"](input_ids), freqs), torch.tensor(0)

    def initialize_state(self, input_embeds, scale=1.0):
        return torch.randn_like(input_embeds) * scale

    def core_block_forward(self, x, input_embeds, freqs_cis, mask, past_key_values, block_idx, current_step):
        assert mask is None and past_key_values is None
        x = self.transformer["adapter"](torch.cat([x, input_embeds], dim=-1))
        return self.transformer["core_block"](x, freqs_cis), block_idx + 1

    def predict_from_latents(self, latents):
        x = self.transformer["coda"](self.transformer["ln_f"](latents), self.freqs_cis[:, : latents.shape[1]])
        return type("Output", (), {"logits": self.lm_head(self.transformer["ln_f"](x)).float()})()
