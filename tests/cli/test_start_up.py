"""What needs no model answers before torch is imported, and `import loopscale` registers the model."""

import os
import pickle
import subprocess
import sys
from dataclasses import fields

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

import loopscale
from loopscale.cli.main import COMMANDS, main
from loopscale.cli.options import RULES
from loopscale.cli.run_options import PARTS, imported, written
from loopscale.evaluate import RULES as REGISTRY
from loopscale.model import LoopedConfig, LoopedForCausalLM
from tests.surface import command

SECONDS = 1.0  # of a processor, whatever else it does meanwhile; it takes about 0.2
ANSWER = """
import sys
from loopscale.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as exit_:
    status = exit_.code
heavy = {"torch", "transformers", "datasets", "matplotlib"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else status)
"""


def answer(*words):
    before = os.times()
    done = subprocess.run([sys.executable, "-c", ANSWER, *words], capture_output=True, text=True, timeout=60)
    after = os.times()
    return done, sum(after[2:4]) - sum(before[2:4])  # of child processes


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 0, "usage: loopscale COMMAND"),
        (["--help"], 0, "usage: loopscale COMMAND"),
        (["--version"], 0, f"loopscale {loopscale.__version__}"),
        (["trian"], 2, "unknown command 'trian': did you mean 'train'?"),
        (["--versoin"], 2, "did you mean '--version'?"),
        *(([name, "--no_such_option"], 2, "there is no option --no_such_option") for name in COMMANDS),
        (["train", "--model.num_loop", "3"], 2, "did you mean --model.num_loops?"),
        (["reproduce", "--data.corpsu=x"], 2, "did you mean --data.corpus?"),
        (["evaluate", "x", "--limt", "3"], 2, "did you mean --limit?"),
        *(([name, "--help"], 0, f"usage: loopscale {name}") for name in COMMANDS),
        (["train", "--preset", "45m", "--help"], 2, "did you mean '44m'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_answers_come_without_the_heavy_imports(words, status, said):
    done, seconds = answer(*words)
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert seconds < SECONDS, f"it took {seconds:.1f} s"


def test_what_sources_declare_is_what_a_run_is_configured_by():
    declared, real = written(), imported()
    assert declared is not None and declared.names() == real.names()
    assert tuple(declared.presets) == tuple(real.presets)
    for part in PARTS:
        assert all(declared.values_of(name)[part] == real.values_of(name)[part] for name in real.presets)
        ours, theirs = ([(f.name, f.type, f.default) for f in fields(one.classes[part])] for one in (declared, real))
        assert ours == [field for field in theirs if field[0] in real.classes[part].__annotations__]


@pytest.mark.parametrize("name", ["train", "reproduce"])
def test_help_of_a_run_is_what_its_options_say(name):
    assert command(name, ["--help"]) == command(name)


def test_every_halting_rule_is_in_the_help():
    assert RULES.split(", ") == list(REGISTRY)


REGISTERED = """
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.for_model("loopscale", vocab_size=8, hidden_size=8, num_stack_layers=1, num_attention_heads=1)
print(type(AutoModelForCausalLM.from_config(config)).__name__)
"""


@pytest.mark.parametrize(
    "first",
    [
        "import loopscale",
        "from transformers import Trainer\nimport loopscale",
        "import loopscale\nfrom transformers import GenerationMixin, PreTrainedModel, pipeline",
    ],
)
def test_importing_loopscale_registers_the_model_whatever_comes_first(first):
    done = subprocess.run([sys.executable, "-c", first + REGISTERED], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "LoopedForCausalLM", done.stderr


def test_public_names_are_attributes_whenever_they_are_imported():
    assert loopscale.LoopedConfig is LoopedConfig and loopscale.LoopedForCausalLM is LoopedForCausalLM
    assert set(loopscale.__all__) <= set(dir(loopscale))
    names: dict[str, object] = {}
    exec("from loopscale import *", names)
    assert set(loopscale.__all__) <= names.keys()
    assert loopscale.evaluate.RULES is REGISTRY
    assert pickle.loads(pickle.dumps(LoopedConfig)) is LoopedConfig
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = loopscale.nothing


def test_the_auto_classes_know_the_model(tmp_path):
    LoopedForCausalLM(
        LoopedConfig(vocab_size=8, hidden_size=8, num_stack_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), LoopedConfig)
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), LoopedForCausalLM)


def test_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"loopscale {loopscale.__version__}"
