"""Published figures of the paper, stated once for claims and tables.

Source: Sharma & Vu, *Dense Supervision Is Not Enough: The Readout Blind Spot in Looped Language Models*
(2026), arXiv 2606.24898. WikiText-103, K = 4 loops, vocabulary 20,000, three seeds. Only figures from
there stand here.
"""

from loopscale.evaluate import FrontierPoint, formula_flops
from loopscale.model import preset_config

CORPUS = "WikiText-103"

#: Tokens per window.
WINDOW = 256

#: Final norm ||H_K|| of the per-loop loss through RMSNorm readouts, by model size.
RMSNORM_FINAL_NORM = {"44M": 39_207, "129M": 56_051}

#: Final norm with raw readouts: given by its order of magnitude alone.
RAW_FINAL_NORM = "tens"

#: Smallest and largest final norm with the norm penalty.
PENALTY_FINAL_NORM = (17, 22)

#: Perplexity at exits 1..4 of the 129M model, by condition.
PERPLEXITY_129M = {
    "per_loop-rmsnorm": (4.98, 4.95, 4.95, 4.97),
    "per_loop-raw": (4.68, 4.55, 4.54, 4.55),
    "per_loop-final_rmsnorm": (4.70, 4.57, 4.56, 4.55),
    "per_loop-rmsnorm-penalty": (4.67, 4.52, 4.51, 4.53),
}

#: Tokens per second at exits 1..4 of the 129M model.
THROUGHPUT_129M = (80_000, 41_000, 28_000, 21_000)


def final_norm_words(condition: str) -> str | None:
    """Return the published final norm of a condition of the 129M model in words, None where there is none."""
    known = {
        "per_loop-rmsnorm": f"{RMSNORM_FINAL_NORM['129M']:,}",
        "per_loop-raw": RAW_FINAL_NORM,
        "per_loop-rmsnorm-penalty": "{} to {}".format(*PENALTY_FINAL_NORM),
    }
    return known.get(condition)


def points_129m() -> tuple[FrontierPoint, ...]:
    """Return the 129M exits of every published condition as points of a frontier; operations by our formula."""
    flops = formula_flops(preset_config("129m"), WINDOW)
    return tuple(
        FrontierPoint(
            model=f"129M {condition} (published)",
            exit=k,
            perplexity=perplexity,
            bits_per_byte=None,
            flops=flops.at_exit(k),
            seconds_per_token=1 / speed,
            group=CORPUS,
        )
        for condition, exits in PERPLEXITY_129M.items()
        for k, (perplexity, speed) in enumerate(zip(exits, THROUGHPUT_129M, strict=True), 1)
    )
