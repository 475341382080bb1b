"""EleutherAI's lm-evaluation-harness over looped models, at any depth and with a halting rule.

Plain `hf` runs our models too, once this module (or `loopscale`) is imported: `num_loops` is a model argument there.
The model `loopscale` adds `halting`, a rule that `loopscale evaluate --halting ... --save_rules` wrote. The harness's
own command line with both models registered is

    python -m loopscale.evaluate.harness run --model loopscale --model_args pretrained=DIR,num_loops=2 --tasks ...

Needs the extra `eval` (lm-eval).
"""

from typing import Any

import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from loopscale.data import encode_prompt, end_of_text
from loopscale.errors import InputError
from loopscale.halting.calibrated import CalibratedRule
from loopscale.halting.halted_run import halted_logits
from loopscale.stepping import Looped


@register_model("loopscale")
class LoopedLM(HFLM):
    """A `LoopedForCausalLM` in the harness.

    Model arguments are those of `hf` (`pretrained`, `num_loops`, `batch_size`, ...) and `halting`: the path of a
    calibrated rule of level `token`. Likelihood tasks then read every token at the exit the rule selects.

    Raises `InputError` for a model that is not ours, a rule of level `sequence` (requests are padded, so that a mean
    over tokens has no meaning), a rule of another full depth, and generation tasks with a rule.
    """

    def __init__(self, pretrained: Any, halting: str | None = None, **kwargs: Any) -> None:
        super().__init__(pretrained, **kwargs)
        if not callable(getattr(self.model, "facts", None)):
            raise InputError(f"{type(self.model).__name__} is not a loopscale model: run it with --model hf.")
        if kwargs.get("prefix_token_id") is None and self.tokenizer.bos_token_id is None and not self._ends:
            # what stands before a text, where no token of the tokenizer does
            self.custom_prefix_token_id = encode_prompt(self.tokenizer, "\n")[0]
        self.halting = None if halting is None else self._rule(halting, self.model)

    @property
    def _ends(self) -> bool:
        """Whether a token ended the documents of the training text, rather than a newline."""
        return end_of_text(self.tokenizer) is not None

    def _rule(self, path: str, model: Looped) -> CalibratedRule:
        rule = CalibratedRule.load(path)
        if rule.level != "token":
            raise InputError(f"'{path}' stops whole sequences: calibrate a rule of level token for lm-eval.")
        rule.require_fit(model, model.num_loops)
        return rule

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        if self.halting is None:
            return super()._model_call(inps, attn_mask, labels)
        with torch.no_grad():
            return halted_logits(self.model, inps, self.halting)

    def _model_generate(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.halting is not None:
            raise InputError("halting in lm-eval is for likelihood tasks: leave `halting` out for generation tasks.")
        return super()._model_generate(*args, **kwargs)


if __name__ == "__main__":
    cli_evaluate()
