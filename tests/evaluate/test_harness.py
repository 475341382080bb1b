import importlib
import importlib.util
import math
from pathlib import Path

import pytest
import torch

from loopscale.data import load_tokenizer
from loopscale.data.corpora import Corpus
from loopscale.errors import InputError
from loopscale.evaluate import RULES, CalibratedRule, sliding_windows
from loopscale.objective import logit_losses
from tests.helpers import tiny_model

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'loopscale[eval]'"
    ),
    pytest.mark.filterwarnings("ignore"),  # lm-eval's own imports warn of this and that
]

TEXTS = ["a looped model\n", "reads its own state again", "def f(x):\n    return x + 1\n"]
LENGTH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    tiny_model(vocab_size=257, readout="raw", max_position_embeddings=32).save_pretrained(path)
    tokenizer = load_tokenizer("bytes", Corpus.of("texts", TEXTS, TEXTS))
    tokenizer.save_pretrained(path)
    lines = [f'{{"text": {line!r}}}'.replace("'", '"') for line in (t.replace("\n", "\\n") for t in TEXTS)]
    (path / "texts.jsonl").write_text("\n".join(lines).replace("\\\\n", "\\n") + "\n")
    (path / "texts.yaml").write_text(
        f"""task: texts
dataset_path: json
dataset_kwargs:
  cache_dir: {path / "cache"}
  data_files:
    test: {path / "texts.jsonl"}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - metric: bits_per_byte
metadata:
  version: 1.0
"""
    )
    return path


NEWLINE = 10
PREFIX = {"loopscale": {}, "hf": {"prefix_token_id": NEWLINE}}


def _bits_per_byte(folder: Path, model: str = "loopscale", **model_args) -> float:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    importlib.import_module("loopscale.evaluate.harness")  # registers the model
    found = simple_evaluate(
        model=model,
        # the tokenizer has no token that begins a text: ours takes a newline then, hf must be told
        model_args={"pretrained": str(folder), "max_length": LENGTH, **PREFIX[model], **model_args},
        tasks=["texts"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        device="cpu",
        bootstrap_iters=0,
    )
    return found["results"]["texts"]["bits_per_byte,none"]


def _expected(folder: Path, num_loops: int) -> float:
    """Return bits per byte of the texts: the harness starts each with the prefix token and slides whole windows."""
    from loopscale.load import load_model, load_tokenizer_of

    model, tokenizer = load_model(str(folder), num_loops=num_loops), load_tokenizer_of(str(folder))
    total = 0.0
    for text in TEXTS:
        ids = torch.tensor([NEWLINE, *tokenizer.encode(text)])
        window = min(LENGTH, len(ids) - 1)
        with torch.no_grad():
            for inputs, labels in sliding_windows(ids, window, window, 1):
                total += logit_losses(model(inputs).logits, labels).sum().item()
    return total / math.log(2) / sum(len(text.encode()) for text in TEXTS)


@pytest.mark.parametrize("model", ["hf", "loopscale"])
@pytest.mark.parametrize("num_loops", [1, 3])
def test_bits_per_byte_at_any_depth(folder, model, num_loops):
    found = _bits_per_byte(folder, model, num_loops=num_loops)
    assert found == pytest.approx(_expected(folder, num_loops), rel=1e-5)


def test_a_halting_rule_is_a_model_argument(folder, tmp_path):
    def at(threshold):
        CalibratedRule(RULES["entropy"], threshold, "token", 3).save(tmp_path / "rule.json")
        return _bits_per_byte(folder, num_loops=3, halting=str(tmp_path / "rule.json"))

    assert at(math.inf) == pytest.approx(_expected(folder, 3), rel=1e-5)
    assert at(-1e9) == pytest.approx(_expected(folder, 1), rel=1e-5)


@pytest.mark.parametrize(
    ("level", "loops", "sentence"), [("sequence", 3, "level token"), ("token", 4, "for 4 loops, not for 3")]
)
def test_a_rule_that_does_not_fit_is_an_input_error(folder, tmp_path, level, loops, sentence):
    CalibratedRule(RULES["entropy"], 0.0, level, loops).save(tmp_path / "rule.json")
    with pytest.raises(InputError, match=sentence):
        _bits_per_byte(folder, num_loops=3, halting=str(tmp_path / "rule.json"))
