"""Code that comes with weights, tokenizers and checkpoints, given to every command: none of it is run.

Pickles that call, and folders whose files name classes of their own. Every case leaves a folder behind where its code
ran; on standard input there is a yes for whoever asks.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.trials.names import Act
from benchmarks.trials.subjects import tiny_run
from loopscale.cli.main import main as command
from loopscale.train import train

RUNS = "import os\nos.makedirs('pwned', exist_ok=True)\n\n\nclass Own:\n    pass\n"
MODEL_MAP = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoModelForCausalLM": "own.Own"}
TOKENIZER = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}


class Runs:
    """Pickles into a call: whoever loads it leaves a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def inputs_with_code(place: Path, words: Callable[..., list[str]]) -> Iterator[tuple[str, Act]]:
    """Yield every command on what brings code; `words` are those of a short training."""
    for name in ("pytorch_model.bin", "model.pt", "weights.ckpt"):
        for way in (_pickled, _saved):
            for verb in ("generate", "evaluate", "export", "convert"):
                yield f"code {way.__name__[1:]} {verb} {name}", partial(_weights, place, name, way, verb)
    yield "code pickle in a checkpoint", partial(_checkpoint, place)
    own, tokenizer = place / "own-model", place / "own-tokenizer"
    yield "code tokenizer train", partial(_made, place, words(f"--data.tokenizer={tokenizer}", out="of-tok"))
    for folder in (own, place / "own-llama"):
        yield (
            f"code train --init_from {folder.name}",
            partial(_made, place, words(f"--init_from={folder}", out="of-own")),
        )
    for trust in ([], ["--trust_remote_code"]):
        for verb, more in _measuring(place).items():
            # a run's own record says which tokenizer it had: what cannot be loaded is made again
            for kind, name in (("code", "own-model"), ("folder with code", "own-tokenizer-of-a-run")):
                line = [verb, str(place / name), *more, *trust]
                yield f"{kind} {name} {' '.join([verb, *trust])}", partial(_made, place, line)
            line = [verb, str(place / "run"), *more, f"--tokenizer={tokenizer}", *trust]
            yield f"code --tokenizer {verb} {' '.join(trust)}", partial(_made, place, line)
            native = [verb, str(place / "native-with-code"), *more, *trust]
            yield f"folder with code beside a native model {verb} {' '.join(trust)}", partial(_made, place, native)
    for name in ("own-model", "own-llama", "own-tokenizer-of-a-run"):
        for line in (["export"], ["convert"], ["convert", "--to=nanbeige"], ["retrofit", "--num_loops=2"], ["check"]):
            out = [] if line == ["check"] else [str(place / "made" / "out.gguf")]
            kind = "code" if name == "own-model" else "folder with code"
            yield f"{kind} {name} {' '.join(line)}", partial(_made, place, [*line, str(place / name), *out])
    short = [f"--data.corpus={place / 'text.txt'}", "--conditions=none", f"--out={place / 'study-with-code'}"]
    yield "code tokenizer reproduce", partial(_made, place, ["reproduce", *short, f"--data.tokenizer={tokenizer}"])
    yield "folder with code report", partial(_reported, place)
    for name in ("own-model", "native-with-code"):
        yield f"folder with code {name} plan", partial(_made, place, ["plan", str(place / name)])


def _measuring(place: Path) -> dict[str, list[str]]:
    text = f"--corpus={place / 'text.txt'}"
    return {
        "evaluate": [text, "--windows=2", "--repeats=1", "--sequence_length=16"],
        "generate": ["--prompt=a", "--max_new_tokens=2"],
        "audit": [text, "--windows=2", "--sequence_length=16"],
        "lens": ["--text=abc", f"--out={place / 'lens.html'}"],
    }


def _made(place: Path, words: list[str]) -> int:
    """Make the folders that words may name, and call."""
    own, tokenizer = {"model_type": "own", "auto_map": MODEL_MAP}, place / "own-tokenizer"
    _write(tokenizer, {"tokenizer_config.json": TOKENIZER, "config.json": own})
    for name, config in (("own-model", own), ("native-with-code", {"auto_map": MODEL_MAP}), ("own-llama", LLAMA)):
        unlisted(place, name)
        kept = {} if name == "own-llama" else json.loads((place / name / "config.json").read_text())
        _write(place / name, {"config.json": {**kept, **config}})
    folder = unlisted(place, "own-tokenizer-of-a-run")
    (folder / "tokenizer.json").unlink()
    _write(folder, {"tokenizer_config.json": TOKENIZER})
    shutil.rmtree(place / "made", ignore_errors=True)
    return command(words)


def _reported(place: Path) -> int:
    """Report a study in a folder that holds code and pickles, beside its results and where its runs are."""
    folder = place / "study-with-code"
    for run in (folder, folder / "per_loop-rmsnorm" / "seed-1"):
        run.mkdir(parents=True, exist_ok=True)
        _write(run, {"config.json": {"auto_map": MODEL_MAP}})
        _pickled(place / "pwned", run / "training_args.bin")
    shutil.copy(place / "results.json", folder)
    return command(["report", str(folder)])


LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["Own"],
    "auto_map": MODEL_MAP,
    **dict.fromkeys(("hidden_size", "intermediate_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 2),
    "vocab_size": 256,
}


def _write(folder: Path, documents: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(RUNS)
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))


def unlisted(place: Path, name: str) -> Path:
    """Return a copy of the finished run that no list of sizes vouches for."""
    folder = place / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "run", folder)
    (folder / "manifest.json").unlink()
    return folder


def _pickled(mark: Path, path: Path) -> None:
    path.write_bytes(pickle.dumps(Runs(mark)))


def _saved(mark: Path, path: Path) -> None:
    torch.save({"model": Runs(mark)}, path)


def _weights(place: Path, name: str, write: Callable[[Path, Path], None], verb: str) -> int:
    folder = unlisted(place, "pickled")
    (folder / "model.safetensors").unlink()
    write(place / "pwned", folder / name)
    shutil.rmtree(place / "made", ignore_errors=True)
    more = _measuring(place).get(verb, [str(place / "made" / "out.gguf")])
    return command([verb, str(folder if name.endswith("bin") else folder / name), *more])


def _checkpoint(place: Path) -> int:
    """Go on in a folder whose checkpoint holds pickles in the place of the optimizer's state."""
    folder = unlisted(place, "checkpointed")
    checkpoint = folder / "checkpoints" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(place / "run" / name, checkpoint)
    (folder / "training.json").unlink()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"model": Runs(place / "pwned")}, checkpoint / name)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
    train(replace(tiny_run(place, save_every=1), out=str(folder)), quiet=True)
    return 0
