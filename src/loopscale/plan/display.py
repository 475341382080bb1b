"""Tables of a plan."""

from loopscale.display import Column, Table, duration, number, percent
from loopscale.plan.loops_or_width import EXPONENT
from loopscale.plan.records import USABLE, Mode, Plan

UNKNOWN = "–"
GIB = 2**30


def plan_tables(plan: Plan) -> list[Table]:
    """Return parameters, memory, time and cost, twice the loops, and loops against width."""
    return [_parameters(plan), _memory(plan), _time(plan), _doubled(plan), _worth(plan)]


def _parameters(plan: Plan) -> Table:
    counts = plan.parameters
    rows = [
        ("embeddings", counts.embeddings, "once"),
        ("before the loops", counts.prelude, "once"),
        ("loop", counts.loop, f"{plan.loops} times"),
        ("before each readout", counts.coda, "per exit"),
        ("head and readout", counts.head, "per exit"),
        ("together", counts.total, ""),
    ]
    cells = tuple((name, f"{count:,}", met) for name, count, met in rows if count or name == "together")
    caption = (
        f"Vocabulary {plan.vocabulary:,}, windows of {plan.sequence:,} tokens, {plan.micro_batch} at a time"
        + (f", {plan.micro_batches} times a step" if plan.micro_batches > 1 else "")
        + f", {plan.precision}. A tied head is counted among the embeddings."
    )
    return Table("parameters", "Parameters", caption, _columns("part", "weights", "met by a token"), cells)


def _memory(plan: Plan) -> Table:
    def row(name: str, of: str) -> tuple[str, ...]:
        return name, *(_gib(getattr(mode.memory, of)) for mode in _modes(plan))

    parts = [("weights", "weights"), ("gradients", "gradients"), ("optimizer", "optimizer")]
    parts += [("exchange between processes", "buckets")] if plan.kept.memory.buckets else []
    parts += [("weights of others", "gathered")] if plan.kept.memory.gathered else []
    parts += [("activations and work, at the peak", "working")]
    parts += [("libraries, and holes of the heap", "outside")] if plan.kept.memory.outside else []
    parts += [("together, at the peak", "total")]
    rows = [row(*part) for part in parts]
    rows.append(row("(kept for the backward pass)", "kept"))
    rows.append(("fits", *("yes" if mode.fits else "no" for mode in _modes(plan))))
    rows.append(("largest micro-batch that fits", *(f"{mode.largest_micro_batch or 0:,}" for mode in _modes(plan))))
    caption = (
        f"GiB of one {plan.device.name} ({plan.memory_bytes / GIB:.1f} GiB; {percent(USABLE)} of it may be used). "
        f"The losses of all exits have {_gib(plan.logits.fused)} alive in the fused head, and would have "
        f"{_gib(plan.logits.plain)} with the logits of every exit kept."
    )
    return Table("memory", "Memory of one device", caption, _columns("part", *_HEADINGS), tuple(rows))


def _time(plan: Plan) -> Table:
    rows = [("operations per token", *(number(mode.flops_per_token) for mode in _modes(plan)))]
    if plan.tokens is not None:
        rows.append(("operations", *(number(plan.tokens * mode.flops_per_token) for mode in _modes(plan))))
    rows.append(("tokens/s", *(_known(mode.tokens_per_second) for mode in _modes(plan))))
    rows.append(("time", *(_hours(mode.hours) for mode in _modes(plan))))
    rows.append(("device-hours", *(_known(None if m.hours is None else m.hours * plan.devices) for m in _modes(plan))))
    rows.append(("cost", *(_known(mode.cost) for mode in _modes(plan))))
    peak = "whose peak is not known (--peak_tflops)"
    if plan.device.peak_tflops is not None:
        peak = f"of {plan.device.peak_tflops:,.0f} TFLOP/s in bf16 ({plan.device.source})"
    length = "length not known (--tokens)" if plan.tokens is None else f"{number(plan.tokens)} tokens"
    caption = (
        f"{length}; {plan.devices} x {plan.device.name} {peak}, at {percent(plan.share_of_peak)} of the peak. "
        "Operations are those of torch's counter: matrix products, and attention over all pairs of tokens, whose "
        "kernel on a GPU makes the scores again in the backward pass."
    )
    return Table("time", "Time and cost", caption, _columns("", *_HEADINGS), tuple(rows))


def _doubled(plan: Plan) -> Table:
    rows = []
    for name, now in (("kept", plan.kept), ("recomputed", plan.checkpointed)):
        then = plan.doubled["kept" if name == "kept" else "checkpointed"]
        ratio = f"{then.flops_per_token / now.flops_per_token:.2f}"
        rows.append((name, ratio, _gib(now.total_bytes), _gib(then.total_bytes), "yes" if then.fits else "no"))
    columns = _columns("loops are", "times operations", "GiB now", "GiB then", "fits")
    title = f"Twice the loops: {plan.loops} to {2 * plan.loops}"
    return Table("doubled", title, "The parameters stay the same.", columns, tuple(rows))


def _worth(plan: Plan) -> Table:
    rows = tuple(
        (str(one.loops), f"{one.loop_parameters:,}", f"{one.parameters:,}", f"{one.equivalent:,}")
        for one in plan.alternatives
    )
    caption = (
        "Layers that cost the same per token, as more weights met fewer times or fewer met more often. Worth: by the "
        f"law of arXiv 2604.21106, where a stack met r times counts as r^{EXPONENT} of them. It is theirs, fitted to "
        "runs of 1 to 8 loops, and not measured here."
    )
    columns = _columns("loops", "weights in the loop", "weights", "worth, in weights met once")
    return Table("worth", "Loops against width", caption, columns, rows)


_HEADINGS = ("loops kept", "loops recomputed")


def _modes(plan: Plan) -> tuple[Mode, Mode]:
    return plan.kept, plan.checkpointed


def _columns(first: str, *others: str) -> tuple[Column, ...]:
    return Column(first), *(Column(heading, numeric=True) for heading in others)


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f}" if size >= GIB / 100 else f"{size / GIB:.4f}"


def _known(value: float | None) -> str:
    return UNKNOWN if value is None else number(value)


def _hours(hours: float | None) -> str:
    if hours is None:
        return UNKNOWN
    return duration(3600 * hours) if hours < 48 else f"{hours / 24:,.1f} days"
