"""Train two looped models that differ in one thing and compare them: `python examples/compare_conditions.py`.

The first is read through an RMSNorm at every exit, which hides the scale of its state from the loss; the second as it
is. Both are trained alike; every exit is scored on validation text, and the audit tells what the loss controls.
"""

from dataclasses import replace
from pathlib import Path

from loopscale.audit import AuditReport, audit
from loopscale.data import batches, load_data
from loopscale.evaluate import DepthCurve, depth_curve
from loopscale.load import load_model
from loopscale.train import RunConfig, preset_run, train

Compared = dict[str, tuple[DepthCurve, AuditReport]]


def main(out: str = "runs/compared", base: RunConfig | None = None) -> Compared:
    base = base or preset_run("laptop")
    data = load_data(base.data.corpus, base.data.tokenizer, sequence_length=base.data.sequence_length)
    windows = list(batches(data.valid, 8, limit=16))  # the same text for both
    found: Compared = {}
    for readout in ("rmsnorm", "raw"):
        run = replace(base, model={**base.model, "readout": readout}, out=str(Path(out) / readout))
        train(run)  # the same command goes on where a run was stopped
        model = load_model(run.out)
        curve, report = depth_curve(model, windows, model.num_loops), audit(model, windows)
        exits = " ".join(f"{point.perplexity:.2f}" for point in curve)
        scale = report.coordinates["scale"]
        print(f"{readout}: perplexity at exits {exits}; last norm {curve[-1].norm:.1f}; scale: {scale.verdict}")
        found[readout] = curve, report
    return found


if __name__ == "__main__":
    main()
