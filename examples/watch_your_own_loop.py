"""Watch a loop of your own while a plain PyTorch loop trains it: `python examples/watch_your_own_loop.py`.

The model hides the scale of its state from the loss (RMSNorm before the head), and its residual loop carries it on:
the state grows, and the watch says so.
"""

import logging

import torch
from torch import Tensor, nn

from loopscale.monitor import Alarm, Watch, watch


class Block(nn.Module):
    """What the loop applies again and again; its output is the state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.RMSNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.down(torch.relu(self.up(self.norm(h))))


class MyModel(nn.Module):
    def __init__(self, width: int = 32, loops: int = 4) -> None:
        super().__init__()
        self.embed, self.block = nn.Embedding(256, width), Block(width)
        self.norm, self.head, self.loops = nn.RMSNorm(width), nn.Linear(width, 256), loops

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        for _ in range(self.loops):
            h = self.block(h)
        return self.head(self.norm(h))


def main(steps: int = 200, every: int = 20, rate: float = 3e-2) -> tuple[Watch, list[Alarm]]:
    torch.manual_seed(0)
    model, alarms = MyModel(), list[Alarm]()
    text = torch.tensor(list(b"the loop carries what the loss cannot see. " * 40))
    optimizer = torch.optim.AdamW(model.parameters(), rate)

    def log(scalars: dict[str, float], step: int) -> None:
        scales = [scalars[f"loop/scale/{k}"] for k in range(1, 5)]
        print(f"step {step}: scale {' '.join(f'{scale:.2f}' for scale in scales)}")

    with watch(model, state="block", every=every, log=log, on_alarm=alarms.append) as watching:
        for _ in range(steps):
            starts = torch.randint(len(text) - 33, (8,))
            window = torch.stack([text[i : i + 33] for i in starts.tolist()])
            loss = nn.functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    print(f"loss {loss.item():.3f}; {watching.cost}")
    return watching, alarms


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    main()
