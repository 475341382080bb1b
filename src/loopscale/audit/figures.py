"""Figures of an audit, written as PNG and SVG."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loopscale.audit.curves import LoopCurves
from loopscale.audit.interventions import Interventions
from loopscale.audit.report import AuditReport

ANGULAR_AXES = ("scale of the state (RMS)", "angular step to the next loop")
FLOOR = 1e-10  # zeros on a logarithmic axis are drawn here


def write_figures(folder: Path, report: AuditReport, curves: LoopCurves, changed: Interventions) -> list[Path]:
    """Write every figure into `folder` and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings: Mapping[str, Callable[[Axes], None]] = {
        "scale": lambda ax: _draw_scale(ax, report),
        "visibility": lambda ax: _draw_visibility(ax, report),
        "retention": lambda ax: _draw_retention(ax, report),
        "lemma2": lambda ax: _draw_lemma2(ax, curves),
        "interventions": lambda ax: _draw_interventions(ax, changed),
        "readout_scaling": lambda ax: _draw_readout_scaling(ax, changed),
    }
    paths = []
    for name, draw in drawings.items():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        for suffix in ("png", "svg"):
            paths.append(folder / f"{name}.{suffix}")
            figure.savefig(paths[-1], dpi=160, metadata={"Date": None} if suffix == "svg" else None)
    return paths


def draw_angular_steps(
    ax: Axes,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Draw the angular step against the scale on logarithmic axes, with 1 / scale from the first curve's start.

    `curves` has scale and angular step per loop, by name (a last scale without a step is left out);
    `styles` are matplotlib's line properties by name.
    """
    for i, (name, (scale, step)) in enumerate(curves.items()):
        known = scale[: len(step)]
        ax.plot(known, step, **{"marker": "o", "label": name, **(styles or {}).get(name, {})})
        if i == 0 and known:
            ends = (min(known), max(known))
            ax.plot(ends, [known[0] * step[0] / s for s in ends], "--", color="0.5", linewidth=1, label="1 / scale")
    ax.set_xscale("log")
    ax.set_yscale("log")


def _draw_scale(ax: Axes, report: AuditReport) -> None:
    for label, values in {
        "mean": [s.norm for s in report.scale],
        "median": [s.norm_median for s in report.scale],
        "p99": [s.norm_p99 for s in report.scale],
        "max": [s.norm_max for s in report.scale],
    }.items():
        ax.plot(_loops(values), values, marker="o", label=label)
    ax.set_yscale("log")
    _finish(ax, "loop", "norm of the state, over tokens")


def _draw_visibility(ax: Axes, report: AuditReport) -> None:
    for name, c in report.coordinates.items():
        for loss, values in {
            "": c.visibility,
            ", norm penalty": c.penalty_visibility,
            ", exit gate": c.gate_visibility,
        }.items():
            if values is not None:
                ax.plot(_loops(values), [max(v, FLOOR) for v in values], marker="o", label=f"{name}{loss}")
    ax.axhline(report.thresholds.visible, color="0.4", linestyle="--", linewidth=1, label="threshold")
    ax.set_yscale("log")
    _finish(ax, "loop", "visibility (share of the gradient)")


def _draw_retention(ax: Axes, report: AuditReport) -> None:
    for name, c in report.coordinates.items():
        ax.plot(_loops(c.retention), c.retention, marker="o", label=name)
    ax.axhline(report.thresholds.retained, color="0.4", linestyle="--", linewidth=1, label="threshold")
    _finish(ax, "loop", "retention by the next loop")


def _draw_lemma2(ax: Axes, curves: LoopCurves) -> None:
    draw_angular_steps(ax, {"measured": (curves.scale, curves.angular_step)})
    _finish(ax, *ANGULAR_AXES)


def _draw_interventions(ax: Axes, changed: Interventions) -> None:
    for name, values in changed.cross_entropy.items():
        ax.plot(_loops(values), values, marker="o", label=name)
    _finish(ax, "exit", "cross-entropy (nats per token)")


def _draw_readout_scaling(ax: Axes, changed: Interventions) -> None:
    factors = list(changed.readout_scaling)
    for k, _ in enumerate(changed.cross_entropy["none"]):
        ax.plot(factors, [changed.readout_scaling[f][k] for f in factors], marker="o", label=f"exit {k + 1}")
    ax.set_xscale("log")
    _finish(ax, "state scaled by this before the readout", "cross-entropy (nats per token)")


def _loops(values: Sequence[float]) -> list[int]:
    return list(range(1, len(values) + 1))


def _finish(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(alpha=0.15)
    ax.legend(frameon=False, fontsize="small")
