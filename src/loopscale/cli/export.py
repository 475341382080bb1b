"""`loopscale export`: a model and its tokenizer, written as one GGUF file."""

from jsonargparse import Namespace

from loopscale.display import console
from loopscale.export import to_gguf
from loopscale.load import load_model, load_tokenizer_of, require_native


def run(args: Namespace) -> int:
    """Write the file and say what is in it."""
    model = require_native(load_model(args.model), "export")
    tokenizer = load_tokenizer_of(args.tokenizer or args.model)
    path = to_gguf(model, tokenizer, args.out, args.dtype, num_loops=args.num_loops, overwrite=args.overwrite)
    loops = args.num_loops or model.num_loops
    size = f"{path.stat().st_size / 2**20:.1f} MiB"
    console().print(f"wrote {path} ({args.dtype}, {loops} loops, {size})", soft_wrap=True, highlight=False)
    return 0
