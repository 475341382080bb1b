"""A looped language model that knows nothing of loopscale, audited through the four verbs.

python examples/audit_your_own_model.py
"""

import torch
from rich import print as show
from torch import nn
from torch.nn import functional as F

from loopscale.audit import audit
from loopscale.audit.display import verdict_table


class MyLoopedModel(nn.Module):
    """Token mixing by a running mean, a feed-forward layer, four loops; the head reads a normalised state."""

    num_loops = 4

    def __init__(self, vocab_size=256, hidden=64):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, hidden)
        self.norm, self.readout_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.mix, self.up, self.down = nn.Linear(hidden, hidden), nn.Linear(hidden, 256), nn.Linear(256, hidden)
        self.head = nn.Linear(hidden, vocab_size, bias=False)

    def embed(self, input_ids):  # verb 1: tokens -> what the first loop receives
        return self.tokens(input_ids)

    def step(self, h, k):  # verb 2: the shared stack, once
        past = torch.arange(1, h.shape[1] + 1, device=h.device)[:, None]
        h = h + self.mix(self.norm(h).cumsum(1) / past)
        return h + self.down(F.silu(self.up(self.norm(h))))

    def carry(self, z, k):  # verb 3: what the next loop receives
        return z

    def readout(self, z, k):  # verb 4: the logits of exit k
        return self.head(self.readout_norm(z))


if __name__ == "__main__":
    torch.manual_seed(0)
    batches = [torch.randint(0, 256, (4, 65)) for _ in range(4)]  # (batch, seq + 1): inputs and next tokens
    report = audit(MyLoopedModel(), batches, supervision="per_loop")
    show(verdict_table(report))
