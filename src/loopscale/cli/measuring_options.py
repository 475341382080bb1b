"""Options of commands that measure: which model and text, in common, and those of the lens and the loop check."""

from collections.abc import Sequence

from loopscale.cli.parser import Parser


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


def add_model_arguments(parser: Parser) -> None:
    """Add how a model is loaded and where it runs."""
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, ...; auto is cuda if there")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that comes with a checkpoint")


def add_text_arguments(parser: Parser) -> None:
    """Add the text, how it becomes tokens, and the length of a window; each by default as in training."""
    parser.add_argument("--corpus", type=str | None, help="name or path of the text (default: the run's, else stdlib)")
    parser.add_argument("--split", type=str | None, help="valid (the default), train, or all for the whole text")
    parser.add_argument("--text_field", type=str | None, help="field of its rows that holds the text (as in the run)")
    parser.add_argument("--tokenizer", type=str | None, help="default: the one saved beside the model")
    parser.add_argument(
        "--sequence_length", type=int | None, help="default: the run's, else the model's positions, at most 256"
    )
