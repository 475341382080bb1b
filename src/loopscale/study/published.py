"""The paper's figures, stated once for claims and tables.

Source: Sharma & Vu, *Dense Supervision Is Not Enough: The Readout Blind Spot in Looped Language Models*
(2026), arXiv 2606.24898. WikiText-103, K = 4 loops, vocabulary 20,000, three seeds. Only figures from
there stand here.
"""

CORPUS = "WikiText-103"

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
