"""The model that a command is about, where it runs, and a text in windows that fit it."""

import torch
from jsonargparse import Namespace

from loopscale.adapters import InjectedLoop, load_model, load_tokenizer_of
from loopscale.cli.parser import Parser
from loopscale.data import Data, load_data
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.stepping import Looped

SEQUENCE_LENGTH = 256  # at most, and where the model does not say how many positions it has


def add_model_arguments(parser: Parser) -> None:
    """Add how a model is loaded and where it runs."""
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, ...; auto is cuda if there")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that comes with a checkpoint")


def add_window_arguments(parser: Parser) -> None:
    """Add the text, how it becomes tokens, and the length of a window."""
    parser.add_argument("--corpus", type=str, default="stdlib", help="name or path of the text, as in training")
    parser.add_argument("--tokenizer", type=str | None, help="default: the one saved beside the model")
    parser.add_argument("--sequence_length", type=int | None, help="default: the model's positions, at most 256")


def load_subject(args: Namespace, name: str) -> Looped:
    """Return a model on the device that was asked for. Raises `InputError` for one that is not there."""
    model = load_model(name, trust_remote_code=args.trust_remote_code)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    assert isinstance(model, torch.nn.Module)
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"--device {device} cannot be used here: {reason}.") from error


def load_windows(args: Namespace, name: str, model: Looped) -> tuple[Data, int]:
    """Return the text in windows under the model's own tokenizer, and their length."""
    positions, vocab_size = SEQUENCE_LENGTH, None
    if isinstance(model, LoopedForCausalLM):
        positions, vocab_size = min(positions, model.config.max_position_embeddings), model.config.vocab_size
    elif isinstance(model, InjectedLoop):
        positions = min(positions, model.positions)
    length = positions if args.sequence_length is None else args.sequence_length
    tokenizer = args.tokenizer or load_tokenizer_of(name)
    return load_data(args.corpus, tokenizer, sequence_length=length, vocab_size=vocab_size), length
