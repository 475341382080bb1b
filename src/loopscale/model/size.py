"""Size of a model: its parameters, and what memory and time it would need, before anything of it is made.

A mistyped number should be a sentence with what it would take, not a machine that stops answering.
"""

import psutil
import torch

from loopscale.display import duration
from loopscale.errors import InputError
from loopscale.mechanism import kind_of

from .config import LoopedConfig, odd_values_told
from .looped import LoopedForCausalLM

BYTES = 4  # of a float32 weight
TRAINED = 4  # copies of it in training: weight, gradient, AdamW's two moments
KEPT = 10  # tensors of a state's size that one layer keeps for its backward pass, at least
DEEPEST = 10_000  # layers one after another in a pass
UNCOUNTED = 10**15  # more than this is told as this
SECONDS_PER_LAYER = 1e-4  # of a tiny one: what it takes to ask a device for its operations


def parameters_of(config: LoopedConfig) -> int:
    """Return how many parameters the model of a configuration has. Nothing is allocated."""
    return _count(skeleton(config, "the configuration"))


def _count(model: LoopedForCausalLM) -> int:
    return sum(weight.numel() for weight in model.parameters())


def skeleton(config: LoopedConfig, source: str) -> LoopedForCausalLM:
    """Return a model on device meta: names and shapes, without memory.

    Raises `InputError` for more layers than a pass can go through, for a size that 64 bits cannot count, and for values
    that transformers looks at only here.
    """
    require_layers(config, source)
    with odd_values_told(f"{source} has a configuration that no model can be made of"), torch.device("meta"):
        try:
            return LoopedForCausalLM(config)
        except (RuntimeError, OverflowError, TypeError) as error:
            raise InputError(f"{source} asks for a weight larger than any memory: lower its sizes.") from error


def require_countable(config: LoopedConfig, source: str) -> int:
    """Return how many parameters a model has. Raises `InputError` as `skeleton` does."""
    return _count(skeleton(config, source))


def draws_of(config: LoopedConfig) -> int:
    """Return how many random numbers the parts keep, beside the parameters: a row for each position."""
    tables = (config.initial_state == "noise") + (kind_of(config.relaxation) == "blind")
    return tables * config.max_position_embeddings * config.hidden_size


def layers_of(config: LoopedConfig) -> int:
    """Return the layers that a token goes through before its readout."""
    return config.num_prelude_layers + config.num_loops * config.num_stack_layers


def require_depth(source: str, loops: int, layers: int = 1, once: int = 0) -> None:
    """Raise `InputError` for more layers in a row than a pass can go through in useful time.

    Args:
        source: what asks for it, for the sentence.
        loops: that are run.
        layers: of one loop, at least.
        once: layers that run once, before the loops or a readout.
    """
    loops, total = min(loops, UNCOUNTED), min(once + loops * layers, UNCOUNTED)
    if total >= DEEPEST:
        raise InputError(
            f"{source} asks for {loops:,} loops, {total:,} layers one after another: each pass would take at least "
            f"{duration(total * SECONDS_PER_LAYER)}; stay below {DEEPEST:,} layers."
        )


def require_layers(config: LoopedConfig, source: str) -> None:
    """Raise `InputError` for a model with more layers in a row than a pass can go through in useful time."""
    deepest = max(config.num_loops, config.trained_loops or 0)  # measurements go as deep as training went
    require_depth(source, deepest, config.num_stack_layers, config.num_prelude_layers + config.num_coda_layers)


def require_room(
    config: LoopedConfig, source: str, tokens: int = 0, kept: bool = True, device: str = "cpu", processes: int = 1
) -> None:
    """Raise `InputError` where a model cannot fit this machine, with what it would need. Nothing is allocated.

    Args:
        config: of the model.
        source: what asks for it, for the sentence.
        tokens: of one micro-batch that it is trained on; 0: it is not trained.
        kept: whether the backward pass keeps what every layer made, not the state after each loop alone.
        device: where it is trained, `cpu` or `cuda`.
        processes: that share weights, gradients and moments out; each still has all weights gathered.
    """
    copies = 1 if not tokens else TRAINED if processes == 1 else min(TRAINED, 1 + TRAINED / processes)
    weights = int(require_countable(config, source) * BYTES * copies) + draws_of(config) * BYTES
    states = layers_of(config) * KEPT if kept else config.num_loops
    activations = tokens * config.hidden_size * states * BYTES // 2
    needed, there = weights + activations, memory(device)
    if needed > there:
        what = f"{amount(weights)} for weights" + (" and their gradients and moments" if tokens else "")
        more = f", {amount(activations)} for what a step of {tokens:,} tokens keeps" if activations else ""
        raise InputError(
            f"{source} would need at least {amount(needed)} of memory ({what}{more}), and this machine has "
            f"{amount(there)}: lower its sizes."
        )


def memory(device: str = "cpu") -> int:
    """Return the bytes of memory of this machine or of its first GPU."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total


def amount(size: int | float) -> str:
    """Return a number of bytes in words."""
    for unit in ("bytes", "KB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            return f"{size:,.0f} {unit}"
        size /= 1000
    return f"{size:,.0f} EB"
