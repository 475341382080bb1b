"""A run's folder as training leaves it, without the training."""

import json
from dataclasses import asdict
from pathlib import Path

from loopscale.data import load_corpus, load_tokenizer
from loopscale.train import DataConfig, preset_run
from tests.helpers import tiny_model

TEXT = "".join(f"story {i}: the cat sat on mat {i % 5} and slept.\n" for i in range(300))


def saved_run(root: Path, name: str = "run", **data) -> Path:
    """Write text.txt and a model of bytes of 48 positions, which says that it was trained on it in windows of 24."""
    text = root / "text.txt"
    if not text.exists():
        text.write_text(TEXT, encoding="utf-8")
    settings = asdict(DataConfig(**{"corpus": str(text), "sequence_length": 24, **data}))
    corpus = load_corpus(settings["corpus"], text_field=settings["text_field"])
    tiny_model(vocab_size=256).save_pretrained(root / name)
    load_tokenizer("bytes", corpus).save_pretrained(root / name)
    document = {"config": {**preset_run("laptop").to_dict(), "data": settings}, "corpus": asdict(corpus.id)}
    (root / name / "run.json").write_text(json.dumps(document), encoding="utf-8")
    return root / name
