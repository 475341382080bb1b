"""Muon for the matrices of the layers and AdamW for everything else, as one optimizer.

Schedules, checkpoints and accelerate know one object with groups and a state; so both are held by one.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, final

import torch
from torch import nn

PARTS: Mapping[str, Callable[[Any], torch.optim.Optimizer]] = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}
PART = "part"  # the key of a group that says whose it is
#: Orthogonal updates get the size of AdamW's, so that one learning rate and weight decay serve both (arXiv 2502.16982).
ADJUST = "match_rms_adamw"


def matrices_of(model: nn.Module) -> set[str]:
    """Return the names of the weights that Muon takes: of linear maps, but not of the LM head and the exit gate.

    It makes an update orthogonal, so that a matrix that maps states to states changes by as much along every direction.
    Rows of an embedding or a head belong to single tokens, whose gradients come seldom, and a gate, a norm, a bias or a
    scalar has no directions to balance: AdamW takes them.
    """
    heads = {id(head) for head in (getattr(model, "lm_head", None), getattr(model, "exit_gate", None))}
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in heads
    }


@final
class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon and torch's AdamW, each on its own groups of this one's; settings and state are this one's.

    Args:
        model: whose weights are trained.
        decayed: names of parameters that decay.
        learning_rate: of both.
        weight_decay: of both.
        adamw: further settings of AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        decayed: Collection[str],
        learning_rate: float,
        weight_decay: float,
        adamw: Mapping[str, Any],
    ) -> None:
        matrices = matrices_of(model)
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        settings = {"muon": {"adjust_lr_fn": ADJUST}, "adamw": {**adamw}}

        def group(part: str, decays: bool) -> dict[str, Any]:
            here = {name for name in trained if (name in matrices) == (part == "muon") and (name in decayed) == decays}
            params = [weight for name, weight in trained.items() if name in here]
            decay = weight_decay if decays else 0.0
            return {**settings[part], "params": params, PART: part, "lr": learning_rate, "weight_decay": decay}

        groups = [group(part, decays) for part in PARTS for decays in (True, False)]
        groups = [group for group in groups if group["params"]]
        self._parts = _parts_on(groups)  # which complete the groups with their defaults
        super().__init__(groups, {})
        self._share_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over groups and state of a checkpoint."""
        super().__setstate__(state)
        self._parts = _parts_on(self.param_groups)
        self._share_state()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def _share_state(self) -> None:
        for part in self._parts:
            part.state = self.state


def _parts_on(groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
    """Return the optimizers of some groups; the groups themselves are theirs, so that a change of one is seen."""
    own = {part: [group for group in groups if group[PART] == part] for part in PARTS}
    return [PARTS[part](theirs) for part, theirs in own.items() if theirs]
