"""Planner of a training: parameters, operations, memory of a device by part, time and cost.

Each where loops are kept for the backward pass and where they are recomputed, and with twice the loops.
"""

from dataclasses import replace
from typing import final

import torch

from loopscale.errors import InputError
from loopscale.hf import cpu_multiplies_bf16
from loopscale.hf.tracing import FakeTensorMode
from loopscale.model import LoopedConfig
from loopscale.model.size import require_countable
from loopscale.objective import fused_cross_entropy, logit_cross_entropy
from loopscale.objective.head import CHUNK_BYTES
from loopscale.plan.devices import CPU
from loopscale.plan.ledger import Ledger
from loopscale.plan.loops_or_width import alternatives
from loopscale.plan.parameters import count_parameters
from loopscale.plan.records import HOLES, LIBRARIES, USABLE, Circumstances, Logits, Memory, Mode, Plan
from loopscale.plan.step import StepCost, step_cost
from loopscale.train import Depth, RunConfig

MOST_WINDOWS = 1 << 14
MOST_LAYERS = 2_000  # one after another: some ten minutes
DRAWN = 1_000  # steps that a mean depth is taken over
BYTES = 4  # of a weight, a gradient and each of the optimizer's numbers
BYTE_VALUES = 256
MOST_PARTS = 4_000  # of a step's logits: a minute goes by until all are gone through without numbers


def plan_run(run: RunConfig, on: Circumstances) -> Plan:
    """Plan a run. Nothing of its size is allocated."""
    return _Planner(run, on).plan()


def plan_memory(run: RunConfig, on: Circumstances, checkpointed: bool) -> tuple[Memory, Logits]:
    """Return the memory of one way to train, with loops recomputed or kept, alone, and that of the losses."""
    planner = _Planner(run, on)
    return planner.memory(planner.cost(planner.micro_batch, checkpointed, planner.deepest)), planner.logits()


@final
class _Planner:
    def __init__(self, run: RunConfig, on: Circumstances) -> None:
        self.run, self.on = run, on
        self.vocabulary, self.notes = _vocabulary(run)
        self.config = run.model_config(self.vocabulary)
        self.deepest, self.mean = _depths(run)
        _require_few(self.config, self.deepest.loops)
        require_countable(self.config, "this run")
        self.parameters = count_parameters(self.config, run.train.optimizer)
        self.bf16 = _bf16(run, on)
        self.micro_batch = run.train.batch_size // run.train.micro_batches
        self._require_few_parts()
        steps = run.train.max_steps
        per_step = run.train.batch_size * run.data.sequence_length * on.devices
        self.tokens = on.tokens if on.tokens is not None else None if steps is None else float(steps * per_step)
        if self.tokens is not None and self.tokens < per_step:
            self.notes += (
                f"a step takes {per_step:,} tokens on {on.devices:,} devices, more than the {self.tokens:,.0f} that "
                "are planned.",
            )
        if run.train.compile:
            self.notes += (
                "train.compile is not in the plan, whose memory and operations are those of a step without.",
            )
        if self.mean.loops != self.deepest.loops:
            self.notes += (
                f"loops are drawn: operations are those of {self.mean.loops}, the mean, with a gradient through "
                f"{self.mean.with_gradient}; memory is that of {self.deepest.loops}, the most.",
            )
        if self.run.train.shard:
            self.notes += ("memory of a sharded run is an estimate from its parts, not measured.",)

    def _require_few_parts(self) -> None:
        """Raise `InputError` for a step whose logits are so many that even going through its parts takes minutes."""
        if (most := CHUNK_BYTES // BYTES) < self.vocabulary:
            raise InputError(f"a vocabulary of {self.vocabulary:,} is not planned for: give one of at most {most:,}.")
        tokens = self.micro_batch * self.run.data.sequence_length
        parts = tokens * self.deepest.loops // (CHUNK_BYTES // (BYTES * self.vocabulary))
        if parts > MOST_PARTS:
            raise InputError(
                f"a step of {tokens:,} tokens and {self.deepest.loops} loops with a vocabulary of {self.vocabulary:,} "
                f"takes its logits in up to {parts:,} parts: lower train.batch_size, data.sequence_length or "
                "the vocabulary."
            )

    def plan(self) -> Plan:
        """Work everything out."""
        on, train = self.on, self.run.train
        twice = 2  # as many loops
        return Plan(
            parameters=self.parameters,
            loops=self.mean.loops,
            loops_with_gradient=self.mean.with_gradient,
            vocabulary=self.vocabulary,
            sequence=self.run.data.sequence_length,
            micro_batch=self.micro_batch,
            micro_batches=train.micro_batches,
            precision="bf16" if self.bf16 else "float32",
            device=on.device,
            memory_bytes=on.memory,
            devices=on.devices,
            sharded=self.run.train.shard,
            share_of_peak=on.share_of_peak,
            price=on.price,
            tokens=self.tokens,
            kept=self.mode(False),
            checkpointed=self.mode(True),
            logits=self.logits(),
            doubled={"kept": self.mode(False, twice), "checkpointed": self.mode(True, twice)},
            alternatives=alternatives(self.parameters, self.mean.loops),
            notes=self.notes,
        )

    def mode(self, checkpointed: bool, times: int = 1) -> Mode:
        """Return memory, time and cost of one way to train, with so many times the loops."""
        here = self.cost(self.micro_batch, checkpointed, self.deepest, times)
        flops = here.flops
        if self.mean != self.deepest:
            flops = self.cost(1, checkpointed, self.mean, times).flops * self.micro_batch
        per_token = flops / (self.micro_batch * here.sequence)
        held, on = self.memory(here), self.on
        peak = on.device.peak_tflops
        speed = None if peak is None else on.devices * peak * 1e12 * on.share_of_peak / per_token
        hours = None if speed is None or self.tokens is None else self.tokens / speed / 3600
        return Mode(
            memory=held,
            total_bytes=held.total,
            fits=held.total <= USABLE * on.memory,
            flops_per_token=per_token,
            tokens_per_second=speed,
            hours=hours,
            cost=None if hours is None or on.price is None else hours * on.devices * on.price,
            largest_micro_batch=self.largest(here, checkpointed) if times == 1 else None,
        )

    def cost(self, batch: int, checkpointed: bool, depth: Depth, times: int = 1) -> StepCost:
        """Return what one micro-batch takes."""
        return step_cost(
            self.config,
            batch,
            self.run.data.sequence_length,
            bf16=self.bf16,
            gpu=self.on.device.name != CPU,
            checkpoint_loops=checkpointed,
            depth={"num_loops": depth.loops * times, "gradient_loops": depth.with_gradient * times},
            accumulated=self.run.train.micro_batches > 1,
        )

    def memory(self, cost: StepCost) -> Memory:
        """Return the bytes of a device by part."""
        on, counts = self.on, self.parameters
        share = on.devices if self.run.train.shard else 1
        gradients = BYTES * counts.total
        held = Memory(
            weights=BYTES * counts.total // share,
            gradients=gradients // share,
            optimizer=BYTES * counts.optimizer_numbers // share,
            buckets=gradients if on.devices > 1 and not self.run.train.shard else 0,
            gathered=BYTES * counts.gathered if self.run.train.shard and on.devices > 1 else 0,
            working=cost.peak - gradients,
            outside=0,
            kept=cost.kept - (gradients if self.run.train.micro_batches > 1 else 0),
        )
        return replace(held, outside=round(LIBRARIES + HOLES * held.tensors)) if on.device.name == CPU else held

    def largest(self, here: StepCost, checkpointed: bool) -> int:
        """Return the largest micro-batch whose step fits; 0 where not even one window does."""
        room = USABLE * self.on.memory
        one = self.cost(1, checkpointed, self.deepest)
        if self.memory(one).total > room:
            return 0
        # bytes per window fall with their number, until logits come in chunks: each line is an estimate from above
        first = self._on_line(one, here if here.batch > 1 else self.cost(4, checkpointed, self.deepest), room)
        if first <= max(here.batch, 4):
            return first
        return self._on_line(here, self.cost(first, checkpointed, self.deepest), room)

    def _on_line(self, a: StepCost, b: StepCost, room: float) -> int:
        less, more = self.memory(a).total, self.memory(b).total
        slope = max((more - less) / (b.batch - a.batch), 1.0)
        return min(MOST_WINDOWS, int(a.batch + (room - less) / slope))

    def logits(self) -> Logits:
        """Return what the losses of all supervised exits have alive at once, fused and not."""
        rows, K = self.micro_batch * self.run.data.sequence_length, self.deepest.loops
        exits = sum(self.run.supervision.supervises(k, K) for k in range(K))
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        with FakeTensorMode():
            weight = torch.empty(self.vocabulary, self.config.hidden_size, dtype=dtype, requires_grad=True)
            seen = [torch.empty(rows, self.config.hidden_size, dtype=dtype, requires_grad=True) for _ in range(exits)]
            labels = torch.zeros(rows, dtype=torch.long)
            with Ledger() as fused:
                fused_cross_entropy(seen, weight, labels, torch.ones(exits, rows))[0].backward()
            with Ledger() as plain:
                losses = [logit_cross_entropy(x @ weight.T, labels) for x in seen]
                torch.stack(losses).sum().backward()
        return Logits(fused.peak, plain.peak)


def _vocabulary(run: RunConfig) -> tuple[int, tuple[str, ...]]:
    """Return the size of the vocabulary, and a note where it is not known."""
    size = run.model_config(None).vocab_size
    if run.data.tokenizer == "words" or "vocab_size" in run.model:
        return size, ()
    if run.data.tokenizer == "bytes":
        return BYTE_VALUES, ()
    return size, (f"the vocabulary of {run.data.tokenizer} is not read: {size:,} is assumed (--model.vocab_size).",)


def _require_few(config: LoopedConfig, loops: int) -> None:
    """Raise `InputError` for a step that would take long to go through even without its numbers."""
    layers = config.num_prelude_layers + loops * config.num_stack_layers + config.num_coda_layers
    if layers > MOST_LAYERS:
        raise InputError(
            f"this run has {loops:,} loops, {layers:,} layers one after another, and a plan goes through each of them: "
            f"plan at most {MOST_LAYERS:,}; what a further loop takes is the same each time."
        )


def _bf16(run: RunConfig, on: Circumstances) -> bool:
    """Return whether products are in bf16: on a CPU where this one multiplies such matrices, unless told."""
    if run.train.precision == "auto" and on.device.name == CPU:
        return cpu_multiplies_bf16()
    return run.train.precision != "float32"


def _depths(run: RunConfig) -> tuple[Depth, Depth]:
    """Return the deepest step that the schedule draws, by what it keeps, and the mean one."""
    schedule = run.schedule
    drawn = [schedule.depth(step, DRAWN) for step in range(1, DRAWN + 1)]
    loops, through = (
        round(sum(values) / DRAWN) for values in zip(*((d.loops, d.with_gradient) for d in drawn), strict=True)
    )
    deepest = max(schedule.extremes, key=lambda depth: (depth.with_gradient, depth.loops))
    return deepest, Depth(max(loops, 1), max(min(through, loops), 1))
