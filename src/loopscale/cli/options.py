"""Options of every command, declared without importing what they are for: help has to answer at once."""

from collections.abc import Callable, Mapping, Sequence
from inspect import getdoc
from typing import Any, Literal

from loopscale.cli.parser import Parser
from loopscale.cli.run_options import (
    add_model_arguments,
    add_plan_arguments,
    add_run_arguments,
    add_text_arguments,
    of_folder,
    starting,
)

# a test holds it against the registry
RULES = "fixed_exit, logit_margin, max_probability, entropy, kl, state_change, exit_gate"
Windows = int | Literal["all"]


def parser_of(name: str, words: Sequence[str]) -> Parser:
    """Return the parser of a command. Raises `InputError` where the `words` hold an option that it has not."""
    declare = OPTIONS[name]
    parser = Parser(prog=f"loopscale {name}", description=getdoc(declare), allow_abbrev=False)
    declare(parser, words)
    return parser


def train(parser: Parser, words: Sequence[str]) -> None:
    """Train one looped model: any size, readout, recurrence and supervision, on your text or a known corpus.

    Starting the same command again goes on where it was stopped. The folder holds the model and its tokenizer (load
    them with transformers), run.json (resolved configuration, versions, revision, corpus hash) and training.json (log
    lines).
    """
    parser.add_argument("--out", type=str, default="runs/train", help="folder of the run")
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="model (folder, file or hub id) whose weights it starts from; its sizes and tokenizer are the defaults",
    )
    add_run_arguments(parser, words)
    if parser.defaults_from is not None:
        parser.defaults_from = starting(parser.defaults_from)


def reproduce(parser: Parser, words: Sequence[str]) -> None:
    """Train the paper's conditions on one corpus, measure every exit, and judge the paper's claims by the figures.

    Finished runs are skipped and stopped ones go on when the same command is started again. Everything is written below
    --out: one folder for each condition and seed, results.json, tables, figures and report.html.
    """
    parser.add_argument("--corpus", type=str, default=None, help="short for --data.corpus")
    parser.add_argument("--tokenizer", type=str, default=None, help="short for --data.tokenizer")
    parser.add_argument(
        "--conditions",
        nargs="+",
        default=None,
        help="conditions to train (all, the grid's, by default); NAME@RATE is one at a learning rate of its own",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="one run of each condition per seed")
    parser.add_argument(
        "--grid",
        type=str,
        default="paper",
        help="paper, scale-control (what keeps scale in bounds, and its cost), or a YAML file: field: [values], ...",
    )
    parser.add_argument(
        "--rates",
        nargs="+",
        type=float,
        default=None,
        help="learning rates: all of them with the first seed, each condition's best with the others",
    )
    parser.add_argument("--processes", type=int, default=None, help="runs at once (GPUs, or cores without one)")
    parser.add_argument("--executor", type=str, default="local", help="local, or ray for the machines of a cluster")
    parser.add_argument(
        "--ray_address", type=str | None, help="of the cluster, or auto (default: RAY_ADDRESS, else this machine alone)"
    )
    parser.add_argument("--out", type=str, default=None, help="folder of the study (runs/PRESET by default)")
    add_run_arguments(parser, words)


def audit(parser: Parser, words: Sequence[str]) -> None:
    """Say which variables of a looped model's state its loss controls, and which are blind spots.

    A blind spot is a variable that no supervised loss sees and that the recurrence carries on. Give a MODEL to measure
    its weights on a corpus, or --config to judge a configuration before training. A run is measured on the text and the
    windows that it was trained on, unless an option says otherwise. Exit status: 0 without blind spots, 3 with any, 2
    on bad input.
    """
    parser.add_argument("model", type=str | None, nargs="?", help="folder or hub id of a looped model")
    parser.add_argument("--config", type=str | None, help="judge this config.json, run.json or run YAML unmeasured")
    add_text_arguments(parser)
    parser.add_argument("--windows", type=Windows, default=32, help="windows of text to measure on, or all")
    parser.add_argument("--batch_size", type=int, default=4, help="windows at a time; memory grows with it")
    parser.add_argument("--supervision", type=str | None, help="what the loss saw, where the model does not say")
    parser.add_argument("--norm_penalty_coef", type=float | None, help="likewise, of the norm penalty")
    parser.add_argument(
        "--thresholds.visible", type=float | None, help="share of a gradient that counts as seen (1e-3)"
    )
    parser.add_argument("--thresholds.retained", type=float | None, help="share left by one loop that is removed (0.1)")
    add_model_arguments(parser)
    parser.add_argument("--full", action="store_true", help="also lemma 2 over 30 loops, and interventions")
    parser.add_argument("--search", action="store_true", help="also look for blind directions without a name")
    parser.add_argument("--json", type=str | None, help="write every figure to this file")
    parser.add_argument("--figures", type=str | None, help="draw into this folder (implies --full)")


def convert(parser: Parser, words: Sequence[str]) -> None:
    """Turn a looped model made elsewhere into a folder of ours: the paper's .pt files, Ouro, Nanbeige, Huginn, Parcae.

    They may be here or on the hub; their own code is not needed and not run. With --to a native model goes back.
    """
    parser.add_argument("source", type=str, help="a .pt file of the paper's code, a folder, or a hub id")
    parser.add_argument("destination", type=str, help="the folder to write")
    parser.add_argument(
        "--to", type=str, default="native", help="native (default), or huginn, nanbeige, ouro, parcae for their names"
    )
    parser.add_argument(
        "--auto_map", action="store_true", help="with the file by which trust_remote_code=True loads it (native only)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the destination if it exists")


def export(parser: Parser, words: Sequence[str]) -> None:
    """Write a model and its tokenizer as one GGUF file, which llama.cpp, Ollama and what else is built on it run.

    The file holds one depth, the trained one unless --num_loops says otherwise. What it cannot hold is refused.
    """
    parser.add_argument("model", type=str, help="folder or hub id of a looped model, with its tokenizer")
    parser.add_argument("out", type=str, help="the GGUF file to write")
    parser.add_argument("--dtype", type=str, default="f32", help="of the matrices: f32, f16, bf16 or q8_0")
    parser.add_argument("--num_loops", type=int | None, default=None, help="another depth than the trained one")
    parser.add_argument("--tokenizer", type=str | None, help="default: the one saved beside the model")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def retrofit(parser: Parser, words: Sequence[str]) -> None:
    """Turn a pretrained model into a looped one: layers before the core run once, the core is looped, the rest follows.

    With one loop it is the original, logits and text. Llama, Mistral, OLMo 2, Qwen 2 and 3, SmolLM 2 and 3, from a
    folder, the hub or a GGUF file; what a looped model cannot compute is refused by name. It is healed as any model is
    trained: loopscale train --init_from OUT. With --scan nothing is written but OUT/scan.json and OUT/scan.md: the
    perplexity of every core and number of loops before any training; an interrupted scan goes on.
    """
    parser.add_argument("source", type=str, help="folder, hub id or GGUF file of a pretrained model")
    parser.add_argument("out", type=str, help="the folder to write")
    parser.add_argument("--core", type=str | None, help="layers to loop, FIRST:END counted from 0, as in 10:20")
    parser.add_argument("--num_loops", type=int, default=4, help="times the core is applied")
    kind = "by name, or as a mapping with its arguments"
    parser.add_argument("--injection", type=dict[str, Any] | str, default="none", help=f"the input in a loop, {kind}")
    parser.add_argument("--relaxation", type=dict[str, Any] | str, default="full", help=f"how far a loop goes, {kind}")
    parser.add_argument("--recurrence", type=dict[str, Any] | str, default="residual", help=f"between loops, {kind}")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    parser.add_argument("--scan", action="store_true", help="measure which layers can be looped, and write no model")
    parser.add_argument("--cores", type=str, nargs="+", default=[], help="of the scan (default: all over the depth)")
    parser.add_argument("--loops", type=int, nargs="+", default=[2, 3, 4], help="of the scan")
    add_text_arguments(parser)
    parser.add_argument("--windows", type=Windows, default=16, help="of the scan: windows of text, or all")
    parser.add_argument("--batch_size", type=int, default=4, help="of the scan: windows at a time")


def evaluate(parser: Parser, words: Sequence[str]) -> None:
    """Say how good every exit of looped models is, what it costs, and when it is safe to stop early.

    Prints the depth curve of each MODEL (also past the trained depth), the frontier of quality against compute and
    throughput with several models in one table, and with --halting the rules that stop early, calibrated on every
    second window and reported on the others. A run is measured on the text and the windows that it was trained on,
    unless an option says otherwise; --split all --windows all scores a whole text.
    """
    parser.add_argument("models", type=str, nargs="+", help="folders or hub ids of looped models")
    add_text_arguments(parser)
    parser.add_argument("--stride", type=int | None, help="score by sliding windows, this many new tokens each")
    parser.add_argument("--windows", type=Windows, default=256, help="windows of text to measure on, or all")
    parser.add_argument("--limit", type=int | None, help="the same as --windows, with 0 for all")
    parser.add_argument("--batch_size", type=int, default=16, help="windows at a time; memory grows with it")
    parser.add_argument("--max_loops", type=int | None, help="depth of the curve (default: 3 times the trained depth)")
    parser.add_argument("--speed_batch_sizes", type=int, nargs="+", default=[1, 32], help="where exits are timed")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each timing; the median counts")
    parser.add_argument(
        "--precision", type=str, nargs="+", default=[], help="also in bfloat16 (bf16), float16 (fp16), int8, int4"
    )
    parser.add_argument("--halting", type=str, nargs="+", default=[], help=f"rules, or all: {RULES}")
    parser.add_argument("--level", type=str | None, help="what stops: sequence, token or both (the default)")
    parser.add_argument("--relative_perplexity", type=float | None, help="target, against full depth (default: 1.01)")
    parser.add_argument("--mean_loops", type=float | None, help="target of halting instead: mean selected loops")
    parser.add_argument("--save_rules", type=str | None, help="write the calibrated rules into this folder")
    parser.add_argument("--reference", type=bool, default=False, help="add the paper's 129M exits to the frontier")
    add_model_arguments(parser)
    parser.add_argument("--json", type=str | None, help="write every figure to this file")
    parser.add_argument("--report", type=str | None, help="write a page of all of it to this file")
    parser.add_argument("--figures", type=str | None, help="draw into this folder")


def generate(parser: Parser, words: Sequence[str]) -> None:
    """Write on from a prompt: at any depth, by self-speculation (same text, faster), early exit, or contrasted exits.

    The text goes to standard output as it is written; --stats adds what it took on standard error.
    """
    parser.add_argument("model", type=str, help="folder or hub id of a looped model")
    parser.add_argument("--prompt", type=str, required=True, help="text to go on from")
    parser.add_argument("--tokenizer", type=str | None, help="default: the one that the model was trained with")
    parser.add_argument("--loops", type=int | None, default=None, help="depth to run (default: the model's)")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="how far to write")
    parser.add_argument("--temperature", type=float | None, default=None, help="sample (default: greedy)")
    parser.add_argument("--top_k", type=int | None, default=None, help="sample among the k likeliest")
    parser.add_argument("--top_p", type=float | None, default=None, help="sample among the likeliest of this mass")
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling")
    parser.add_argument("--speculate", action="store_true", help="draft with early exits, confirm at full depth")
    parser.add_argument("--draft_loops", type=int | None, default=None, help="loops to a draft (default: 1)")
    parser.add_argument("--draft_tokens", type=int | None, default=None, help="most tokens ahead of full depth (16)")
    parser.add_argument("--early_exit", type=str | None, default=None, help="RULE.json that `evaluate` calibrated")
    parser.add_argument(
        "--exit_slots",
        type=str | None,
        default=None,
        help="cache of the loops a token left out: recompute (exact; default) or share_last",
    )
    parser.add_argument(
        "--contrast", type=float | None, default=None, help="share of an earlier exit's logits to take off"
    )
    parser.add_argument("--contrast_loop", type=int | None, default=None, help="loop of that exit (default: 1)")
    add_model_arguments(parser)
    parser.add_argument("--stats", action="store_true", help="print speed, accepted drafts and executed loops")


def report(parser: Parser, words: Sequence[str]) -> None:
    """Write the tables, figures and page of a study anew from its results.json, and print its claims.

    Several studies are merged into one: more seeds, more conditions, other machines. They must have one text and one
    configuration; what differs is told. A seed of a condition that stands in two of them counts as the first has it.
    """
    parser.add_argument("run_dirs", type=str, nargs="+", help="folders that `loopscale reproduce` wrote")
    parser.add_argument("--out", type=str | None, help="folder to write (default: its own; runs/merged of several)")
    parser.add_argument("--latex", action="store_true", help="write Table 1 and the claims for a paper too, in latex/")


def check(parser: Parser, words: Sequence[str]) -> None:
    """Train a configuration for a few steps at several widths, loops and learning rates, and judge its state.

    What grows with the width, from loop to loop or from step to step, and loops that no longer turn the state, are told
    before a run is paid for. It trains on one batch of random tokens. Exit status: 0 steady, 3 not, 2 on bad input.
    """
    parser.add_argument("config", type=str, help="config.json, run.json, run YAML, or the name of a preset")
    parser.add_argument("--widths", type=int, nargs="+", help="hidden sizes (default: a quarter, half and its own)")
    parser.add_argument("--loops", type=int, nargs="+", help="numbers of loops (default: half, its own and twice)")
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[3e-4, 3e-3], help="of AdamW")
    parser.add_argument("--steps", type=int, default=5, help="steps at each")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and tokens")
    parser.add_argument("--figure", type=str, default="loop-check.png", help="the figure to draw, as PNG and SVG")
    parser.add_argument("--json", type=str | None, help="write every figure to this file")


def lens(parser: Parser, words: Sequence[str]) -> None:
    """Show a text token by token and loop by loop, as a page of one file that opens anywhere.

    At every exit: the likeliest next tokens with their probabilities, where the prediction settles, how surprising the
    token is that does come, the scale of the state, and how far the next loop turns it.
    """
    parser.add_argument("model", type=str, help="folder or hub id of a looped model")
    parser.add_argument("--text", type=str | None, help="the text")
    parser.add_argument("--file", type=str | None, help="a file that holds it, in UTF-8")
    parser.add_argument("--out", type=str, default="lens.html", help="the page to write")
    parser.add_argument("--tokenizer", type=str | None, help="default: the one that the model was trained with")
    parser.add_argument("--loops", type=int | None, default=None, help="exits to look at (default: the model's)")
    parser.add_argument("--window", type=int | None, help="tokens at a time (default: its positions, at most 1024)")
    add_model_arguments(parser)


def plan(parser: Parser, words: Sequence[str]) -> None:
    """Say what a training takes before it runs: parameters, operations, memory of a device by part, time and cost.

    Options of the run are those of train. A step is gone through without its numbers, so nothing of its size is needed
    here. Everything is said for loops that are kept for the backward pass and for loops that are recomputed there.
    """
    add_plan_arguments(parser)
    add_run_arguments(parser, words)
    if parser.defaults_from is not None:
        parser.defaults_from = of_folder(parser.defaults_from)


OPTIONS: Mapping[str, Callable[[Parser, Sequence[str]], None]] = {
    declare.__name__: declare
    for declare in (train, reproduce, audit, check, convert, retrofit, export, evaluate, generate, lens, plan, report)
}
