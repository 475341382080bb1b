"""Figures of the measurements, drawn with matplotlib and written as PNG and SVG."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loopscale.evaluate.curve import DepthCurve
from loopscale.evaluate.frontier import Cost, FrontierPoint, dominated

MARKS = "osD^vP*X"
CUT = 10


def depth_figure(curves: Mapping[str, DepthCurve]) -> Figure:
    """Draw perplexity (with two standard errors of its logarithm) and norm over exits; dotted: trained depths.

    Perplexities above `CUT` times every model's best leave the picture, so that the others can be told apart.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        exits = [p.exit for p in curve]
        perplexity = [p.perplexity for p in curve]
        (line,) = left.plot(exits, perplexity, marker=".", label=name)
        bands = [np.multiply(perplexity, np.exp([sign * p.cross_entropy_se for p in curve])) for sign in (-2, 2)]
        left.fill_between(exits, *bands, color=line.get_color(), alpha=0.15, linewidth=0)
        right.plot(exits, [p.norm for p in curve], marker=".", color=line.get_color())
        for axes in (left, right):
            axes.axvline(curve.trained_loops, color=line.get_color(), linestyle=":", linewidth=1)
    for axes, label in ((left, "perplexity"), (right, r"mean $\|z_k\|_2$")):
        axes.set(xlabel="exit", ylabel=label, yscale="log")
        axes.grid(alpha=0.2)
    every = [[p.perplexity for p in curve if math.isfinite(p.perplexity)] for curve in curves.values()]
    top = CUT * max((min(some) for some in every if some), default=math.inf)
    if any(p > top for some in every for p in some):
        left.set(ylim=(min(min(some) for some in every if some) / 2, top), ylabel="perplexity (beyond: cut off)")
    left.legend(frameon=False)
    return figure


def frontier_figure(points: Sequence[FrontierPoint], styles: Mapping[str, Mapping[str, Any]] | None = None) -> Figure:
    """Draw perplexity against operations per token and against throughput, one line per model; exits are numbered.

    Exits that another one dominates are hollow. `styles` are matplotlib's line properties by model.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _points(left, points, "flops", lambda point: point.flops, styles or {})
    _points(right, points, "seconds", lambda point: point.tokens_per_second, styles or {})
    left.set(xlabel="FLOPs per token", ylabel="perplexity", xscale="log")
    right.set(xlabel="tokens per second", ylabel="perplexity", xscale="log")
    right.invert_xaxis()  # cost grows to the right on both sides
    for axes in (left, right):
        axes.grid(alpha=0.2)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def halting_figure(title: str, report: Mapping[str, Any]) -> Figure:
    """Draw relative perplexity against selected loops for every rule of `run_halting`, and the oracle's bound."""
    levels = list(report["oracle"])
    figure = Figure(figsize=(5 * len(levels), 4), layout="constrained")
    for axes, level in zip(figure.subplots(1, len(levels), squeeze=False)[0], levels, strict=True):
        bound = report["oracle"][level]
        axes.plot(bound["selected_loops"], bound["relative_perplexity"], "k*", label="oracle (bound)")
        rows = [row for row in report["results"] if row["rule"]["level"] == level]
        for row, mark in zip(rows, MARKS, strict=False):
            loops, quality = row["selected_loops"], row["relative_perplexity"]
            axes.errorbar(
                loops["value"],
                quality["value"],
                xerr=[[loops["value"] - loops["low"]], [loops["high"] - loops["value"]]],
                yerr=[[quality["value"] - quality["low"]], [quality["high"] - quality["value"]]],
                marker=mark,
                capsize=2,
                label=row["rule"]["rule"],
            )
        axes.set(
            xlabel="selected loops per token", title=f"{title}, per {level}", xlim=(0.8, report["num_loops"] + 0.2)
        )
        axes.grid(alpha=0.2)
        axes.legend(frameon=False, fontsize="small")
    figure.axes[0].set_ylabel("perplexity / full depth")
    figure.suptitle(f"target: {report['target']}", fontsize="medium")
    return figure


def write_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write the figure as PNG and SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        figure.savefig(folder / f"{name}{suffix}", dpi=150)


def _points(
    axes: Axes,
    points: Sequence[FrontierPoint],
    kind: Cost,
    place: Callable[[FrontierPoint], float | None],
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    by_model: dict[str, list[tuple[float, FrontierPoint, bool]]] = {}
    for point, hit in zip(points, dominated(points, kind), strict=True):
        own = by_model.setdefault(point.model, [])
        if (x := place(point)) is not None:
            own.append((x, point, hit))
    for i, (name, own) in enumerate(by_model.items()):
        style = {"marker": MARKS[i % len(MARKS)], **styles.get(name, {})}
        filled = [j for j, (_, _, hit) in enumerate(own) if not hit]
        (line,) = axes.plot(
            [x for x, _, _ in own], [p.perplexity for _, p, _ in own], label=name, markevery=filled, **style
        )
        hollow = [(x, p.perplexity) for x, p, hit in own if hit]
        looks = {"marker": style["marker"], "color": line.get_color(), "linestyle": "", "markerfacecolor": "none"}
        axes.plot([x for x, _ in hollow], [y for _, y in hollow], **looks)
        for x, p, _ in own:
            axes.annotate(str(p.exit), (x, p.perplexity), textcoords="offset points", xytext=(4, 4), fontsize=7)
