"""What a model says of itself, what is assumed of one that says nothing, and what is told of one that is none."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from loopscale import InputError
from loopscale.audit import audit, intervene, loop_curves, search
from loopscale.errors import require_looped
from loopscale.evaluate import (
    RULES,
    CalibratedRule,
    counted_flops,
    depth_curve,
    depth_curves,
    halted_logits,
    is_gated,
    measure_depth,
    measure_speed,
    run_depth,
    run_halting,
    time_halting,
    token_flops,
    trace_exits,
)
from loopscale.facts import Facts, depth_of, facts_of
from loopscale.objective import ExitGate, Losses, PerLoop, Terminal
from loopscale.study.topics.audit import record_of
from tests.audit.test_foreign_models import Base
from tests.helpers import tiny_model

IDS = torch.randint(1, 31, (2, 9), generator=torch.Generator().manual_seed(0))
RULE = CalibratedRule(RULES["max_probability"], 0.5, "token", 3)
ENTRIES = {
    "audit": lambda m: audit(m, [IDS]),
    "search": lambda m: search(m, [IDS, IDS]),
    "loop_curves": lambda m: loop_curves(m, [IDS]),
    "intervene": lambda m: intervene(m, [IDS]),
    "record_of": lambda m: record_of(m, [IDS]),
    "depth_curve": lambda m: depth_curve(m, [IDS]),
    "depth_curves": lambda m: depth_curves(m, [IDS]),
    "measure_depth": lambda m: measure_depth(m, [IDS]),
    "run_depth": lambda m: run_depth(m, [IDS]),
    "token_flops": lambda m: token_flops(m, IDS),
    "counted_flops": lambda m: counted_flops(m, IDS),
    "measure_speed": lambda m: measure_speed(m, IDS, [1]),
    "trace_exits": lambda m: trace_exits(m, [IDS], [RULES["max_probability"]]),
    "halted_logits": lambda m: halted_logits(m, IDS, RULE),
    "time_halting": lambda m: time_halting(m, IDS, [RULE], 2, 1),
    "run_halting": lambda m: run_halting(m, [IDS], [IDS]),
    "is_gated": is_gated,
    "facts_of": facts_of,
}


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=31, n_embd=8, n_layer=1, n_head=1, n_positions=16))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: nn.DataParallel(tiny_model()), r"DataParallel wraps a looped model.*give its `\.module`"),
        (lambda: Wrapper(Base()), r"Wrapper wraps a looped model.*give its `\.module`"),
        (
            lambda: nn.DataParallel(nn.Linear(2, 2)),
            "DataParallel is not a looped model: it lacks",
        ),
        (gpt2, "GPT2LMHeadModel is not a looped model: it lacks `embed"),
        (lambda: None, "NoneType is not a looped model"),
        (lambda: "runs/mine", "'runs/mine' is a name and no looped model: load it"),
        (lambda: type(tiny_model()), "LoopedForCausalLM is a class"),
    ],
    ids=["data_parallel", "wrapper", "wrapped_linear", "gpt2", "none", "name", "class"],
)
def test_what_is_no_looped_model_gets_one_sentence_everywhere(entry, build, sentence):
    with pytest.raises(InputError, match=sentence):
        ENTRIES[entry](build())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of importing its compiler
def test_a_compiled_model_is_measured_as_what_it_wraps():
    model = tiny_model()
    compiled = torch.compile(model)
    assert depth_curve(compiled, [IDS])[2] == depth_curve(model, [IDS])[2]


@pytest.mark.parametrize("loops", [0, -1, 2.0, True, "3"])
def test_a_depth_is_a_whole_number_of_loops(loops):
    with pytest.raises(InputError, match="num_loops is"):
        depth_of(tiny_model(), loops)
    odd = Base()
    odd.num_loops = loops
    with pytest.raises(InputError, match="num_loops is"):
        require_looped(odd)


def test_our_models_say_what_they_are():
    model = tiny_model(supervision="exit_gate", norm_penalty_coef=0.1, readout="final_rmsnorm", trained_loops=2)
    facts = facts_of(model)
    assert (facts.trained_depth, facts.positions, facts.vocab_size) == (2, 48, 31)
    assert [loss.name for loss in facts.losses] == ["cross-entropy", "norm penalty", "exit gate"]
    assert list(facts.readings) == ["trained", "final"]
    assert facts.head is model.lm_head.weight and facts.gate is not None and facts.flops is not None
    assert facts_of(tiny_model()).gate is None


def test_a_model_that_says_nothing_gets_the_defaults_and_its_attributes_count():
    facts = facts_of(Base(num_loops=4))
    assert (facts.trained_depth, facts.losses.supervision, facts.positions, facts.padding) == (
        4,
        "per_loop",
        None,
        None,
    )
    told = Base(num_loops=4)
    told.trained_loops, told.supervision, told.positions = 2, Terminal(), nn.Embedding(3, 3)
    facts = facts_of(told)
    assert (facts.trained_depth, facts.losses.supervision, facts.positions) == (2, "terminal", None)


def test_a_model_may_say_its_facts_itself():
    class Own(Base):
        def facts(self):
            return Facts(
                1,
                Losses.of(1, PerLoop()),
                {"trained": lambda z, k, labels, context: z.mean(-1)},
                gate=lambda z, k, context, received: z.mean(-1).sigmoid(),
            )

    assert facts_of(Own()).trained_depth == 1 and is_gated(Own())
    wrong = Base()
    wrong.facts = lambda: {}
    with pytest.raises(InputError, match=r"Base\.facts\(\) returned dict"):
        facts_of(wrong)


@pytest.mark.parametrize(
    ("ids", "padding"),
    [
        ({"pad_token_id": 0}, 0),
        ({"pad_token_id": 0, "eos_token_id": 0}, None),
        ({"pad_token_id": 0, "eos_token_id": [2, 0]}, None),
        ({"pad_token_id": 0, "eos_token_id": 2}, 0),
        ({}, None),
    ],
)
def test_padding_is_known_as_generate_knows_it(ids, padding):
    assert facts_of(tiny_model(**ids)).padding == padding


def test_losses_say_where_they_look():
    gated = Losses.of(3, ExitGate(0.1))
    assert [[loss.looks(k) for k in range(3)] for loss in gated] == [[True] * 3, [True, True, False]]
    assert [Losses.of(3, Terminal()).exits.looks(k) for k in range(3)] == [False, False, True]
    assert not Losses.of(2, PerLoop((0.0, 0.0))).look_anywhere
