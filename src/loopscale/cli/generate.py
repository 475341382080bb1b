"""`loopscale generate`: the text on standard output, what it took on standard error."""

import warnings
from typing import Any, final

import torch
from jsonargparse import Namespace
from torch import Tensor
from transformers import TextStreamer

from loopscale.adapters import stream_plainly
from loopscale.cli.subject import load_subject, own_tokenizer
from loopscale.data import Corpus, encode_prompt, load_tokenizer
from loopscale.decode import (
    EXIT_SLOTS,
    Contrast,
    DecodeStats,
    Generation,
    early_exit_generate,
    full_depth_generate,
    speculative_generate,
)
from loopscale.display import console, spelled
from loopscale.errors import InputError
from loopscale.evaluate import CalibratedRule
from loopscale.facts import facts_of
from loopscale.load import require_native
from loopscale.model import LoopedForCausalLM
from loopscale.model.native import is_native
from loopscale.stepping import Looped
from loopscale.storage import is_text
from loopscale.system.provenance import provenance

DRAFTING = ("draft_loops", "draft_tokens")


def run(args: Namespace) -> int:
    """Load, write, count."""
    if args.speculate and args.early_exit is not None:
        raise InputError("--speculate keeps the text of full depth, --early_exit changes it: choose one.")
    if args.contrast is not None and (args.speculate or args.early_exit is not None):
        other, why = (
            ("--speculate", "whose drafts full depth alone confirms")
            if args.speculate
            else (
                "--early_exit",
                "where a token may leave before the exit that it is contrasted with",
            )
        )
        raise InputError(f"--contrast reads two exits of every token, and {other} {why}: choose one.")
    _check_words(args)
    notes = console(stderr=True)
    model = load_subject(args, args.model)
    tokenizer, special = prompt_tokenizer(args.model, args.tokenizer, model)
    input_ids = torch.tensor([_prompt_ids(tokenizer, args.prompt, special)])
    streamer = _Shown(tokenizer, skip_special_tokens=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            stats = _write(model, args, input_ids, streamer)
        except InputError:
            if streamer.begun:
                print(flush=True)  # the sentence stands below the prompt
            raise
    for warning in caught:
        notes.print(f"note: {warning.message}", soft_wrap=True)
    if args.stats and stats is not None:
        notes.print(*_in_words(stats), sep="\n", soft_wrap=True, highlight=False)
    return 0


def _write(model: Looped, args: Namespace, input_ids: Tensor, streamer: TextStreamer) -> DecodeStats | None:
    """Write in the way that the model and the options allow; return what it took, where that is counted."""
    if is_native(model):
        return _write_cached(model, args, input_ids, streamer).stats
    _write_plainly(model, args, input_ids, streamer)
    return None


@final
class _Shown(TextStreamer):
    """Writes the text as it comes, without what a terminal would obey: a model writes any character."""

    begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Write a piece of the text."""
        self.begun = True
        super().on_finalized_text(spelled(text), stream_end)


def _prompt_ids(tokenizer: Any, prompt: str, special: bool) -> list[int]:
    """Return the prompt's ids: as our runs encode their text, or as another model's tokenizer begins it."""
    return list(tokenizer(prompt).input_ids) if special else encode_prompt(tokenizer, prompt)


def _check_words(args: Namespace) -> None:
    """Refuse a prompt that is no text, a seed that is none, and options that would do nothing."""
    if not args.prompt:
        raise InputError("the prompt is empty: give some text with --prompt.")
    if not is_text(args.prompt):
        raise InputError("the prompt is not UTF-8 text: give it in UTF-8.")
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed is {args.seed}: give a whole number from 0 to 2^63 - 1.")
    needs = dict.fromkeys(DRAFTING, "speculate") | {"exit_slots": "early_exit", "contrast_loop": "contrast"}
    for name, needed in needs.items():
        if args[name] is not None and not args[needed]:
            raise InputError(f"--{name} does nothing without --{needed}: give both or neither.")


def _write_plainly(model: Looped, args: Namespace, input_ids: Tensor, streamer: TextStreamer) -> None:
    """Write greedily without a cache: all that a model behind the four verbs can do."""
    asked = {
        "--speculate": args.speculate,
        "--early_exit": args.early_exit,
        "--contrast": args.contrast,
        "--stats": args.stats,
        "sampling": any(value is not None for value in (args.temperature, args.top_k, args.top_p)),
    }
    for part in (name for name, wanted in asked.items() if wanted):
        require_native(model, part)
    for tokens in stream_plainly(model, input_ids, args.max_new_tokens, args.loops):
        streamer.put(tokens)
    streamer.end()


def _write_cached(model: LoopedForCausalLM, args: Namespace, input_ids: Tensor, streamer: TextStreamer) -> Generation:
    """Write in the way that was asked for, on the per-loop cache."""
    options: dict[str, Any] = {
        "input_ids": input_ids,
        "max_new_tokens": args.max_new_tokens,
        "num_loops": args.loops,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "generator": torch.Generator(model.device).manual_seed(args.seed),
        "streamer": streamer,
    }
    if args.early_exit is not None:
        rule = CalibratedRule.load(args.early_exit)
        if rule.level != "token":
            raise InputError(
                f"the rule of '{args.early_exit}' stops whole sequences: calibrate one with --level token."
            )
        rule.require_fit(model, model.num_loops if args.loops is None else args.loops)
        return early_exit_generate(model, rule=rule, exit_slots=args.exit_slots or EXIT_SLOTS[0], **options)
    if not args.speculate:
        contrast = (
            None
            if args.contrast is None
            else Contrast(args.contrast, 1 if args.contrast_loop is None else args.contrast_loop)
        )
        return full_depth_generate(model, contrast=contrast, **options)
    drafting = {name: args[name] for name in DRAFTING if args[name] is not None}
    return speculative_generate(model, **drafting, **options)


def _in_words(stats: DecodeStats) -> list[str]:
    """Return the statistics as one line per kind."""
    lines = [
        f"{stats.new_tokens} tokens in {stats.seconds:.2f} s ({stats.tokens_per_second:.0f} tokens/s, prompt included)",
        f"executed loops per token {stats.loops_per_token:.2f}, one after another {stats.passes_per_token:.2f}",
    ]
    if stats.verifications:
        lines.append(
            f"accepted {stats.accepted} of {stats.drafted} drafted tokens ({stats.acceptance:.0%}); "
            f"{stats.rechecked} near ties decided by single steps"
        )
    return lines


def prompt_tokenizer(name: str, named: str | None, model: Looped) -> tuple[Any, bool]:
    """Return the tokenizer of prompts, and whether it adds its special tokens: not to those of our runs.

    A run reads text without them. `named` is another tokenizer than the model's own.
    """
    run = provenance(name)
    if named is None:
        try:
            return own_tokenizer(name, run), run is None
        except InputError:
            if run is None or run.tokenizer == "words":
                raise
            named = run.tokenizer
    if named == "words":
        raise InputError("--tokenizer words is fitted on a text: give the folder in which it was saved.")
    no_text = Corpus.of("no text", ["-"], ["-"])
    return load_tokenizer(named, no_text, vocab_size=facts_of(model).vocab_size), run is None
