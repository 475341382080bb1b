"""Parcae (package `parcae_lm` of the repository SandyResearch/parcae) behind the four verbs.

The state is what the core returns after each loop, before the readout's matrix C. It is carried as it is; the
injection then damps every channel by a learned exp(-dt A) and adds the prelude's output. The core is pre-norm and
residual and nothing normalises the state, so nothing is closed by architecture: what the core writes accumulates, and
only the damping bounds it. The readout, lm_head(ln_f(coda(C z))), hides the scale of what enters ln_f, not that of z
itself: the coda's own updates are added to C z, and how much they weigh depends on its scale. That visibility fades
as the state outgrows them. The loss is cross-entropy at the last loop only, of a depth drawn anew at every training
step. So an audit can find scale, the mean and any direction; the damping bounds how long they stay.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, final

import torch
from torch import Tensor, nn

from loopscale.adapters.injected import Injected, InjectedLoop
from loopscale.errors import InputError
from loopscale.objective import Terminal
from loopscale.stepping import Logits, State, Tokens

WEIGHT_FILES = ("pytorch_model.bin", "model.pt")
HEADS = ("pytorch", "cce")  # the others return a loss instead of logits


@final
class Parcae(InjectedLoop):
    """The four verbs of a live `parcae_lm` model, through its public modules.

    The model draws its initial state. Here one draw with a fixed seed serves every row and every length, so that
    results repeat and do not depend on batching. Value embeddings read the tokens at every loop.
    """

    family = "Parcae"

    def __init__(self, model: nn.Module, seed: int = 0) -> None:
        super().__init__(model)
        config = self.model.config
        if config.use_fused_head not in HEADS:
            raise InputError(
                f"this Parcae has the fused head '{config.use_fused_head}', which gives no logits on its own: "
                "build it with use_fused_head='pytorch'."
            )
        self.seed = seed
        self.num_loops = self.trained_loops = config.mean_recurrence
        self.positions = config.block_size
        self.supervision = Terminal()
        self._first: Tensor | None = None

    def prelude(self, tokens: Tokens) -> Injected:
        """Return ln_prelude(prelude(wte(tokens) * emb_scale))."""
        parts = self.model.transformer
        x = parts.wte(tokens) * self.model.emb_scale
        x = self._blocks(parts.prelude, 0, x, tokens)
        return parts.ln_prelude(x) if self.model.config.prelude_norm else x

    def initial_state(self, injected: Injected) -> State:
        """Return the one draw, for this many rows and positions."""
        if self._first is None or (self._first.device, self._first.dtype) != (injected.device, injected.dtype):
            room = injected.new_zeros(1, self.positions, injected.shape[-1])
            with torch.random.fork_rng(devices=[injected.device] if injected.is_cuda else []):
                torch.manual_seed(self.seed)
                self._first = self.model.initialize_state(room).detach()
        B, T, _ = injected.shape
        return self._first[:, :T].expand(B, -1, -1)

    def core(self, h: State, k: int, injected: Injected, tokens: Tokens) -> State:
        """Apply core(adapter(h, injected))."""
        parts = self.model.transformer
        return self._blocks(parts.core_block, len(parts.prelude), parts.adapter(h, injected), tokens)

    def coda(self, z: State, tokens: Tokens) -> Logits:
        """Return lm_head(ln_f(coda(C z))), scaled and soft-capped."""
        parts, config = self.model.transformer, self.model.config
        x = self._blocks(parts.coda, len(parts.prelude) + len(parts.core_block), parts.C(z), tokens)
        logits = self.model.lm_head(parts.ln_f(x)).float() * config.init.logit_scale
        cap = config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _blocks(self, blocks: nn.ModuleList, first: int, x: State, tokens: Tokens) -> State:
        """Apply blocks, of which the first has number `first` among the value embeddings."""
        rotary, values = self.model.freqs_cis[:, : x.shape[1]], self.model.value_embeds
        for i, block in enumerate(blocks, first):
            x = block(x, rotary, None, ve=values[str(i)](tokens) if str(i) in values else None)
        return x


def load_parcae(folder: Path, config: Mapping[str, Any]) -> Parcae:
    """Load the live model of a folder with config.json and weights, as `parcae_lm.save_pretrained` writes it.

    Raises `InputError` where the package is not installed or the weights are not those of the config.
    """
    try:
        config_class = import_module("parcae_lm").ParcaeConfig
    except ImportError as error:
        raise InputError(
            "a Parcae needs the package parcae_lm of the repository SandyResearch/parcae (the package of that name on "
            "PyPI holds no code): clone it and put it on the Python path."
        ) from error
    path = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if path is None:
        raise InputError(f"no weights in '{folder}': it needs {' or '.join(WEIGHT_FILES)}.")
    try:
        model = config_class(**{key: value for key, value in config.items() if key != "_class_name"}).construct_model()
        report = model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=False)
    except (TypeError, RuntimeError, UnpicklingError) as error:
        raise InputError(f"config and weights in '{folder}' are not those of one Parcae: {error}") from error
    missing = [name for name in report.missing_keys if name != "freqs_cis"] + report.unexpected_keys
    if missing:
        raise InputError(f"config and weights in '{folder}' are not those of one Parcae: {missing[0]} does not fit.")
    return Parcae(model.eval())
