"""What cannot fit this machine, or end, is refused with what it would need, before anything is made."""

import time
from contextlib import suppress
from dataclasses import fields

import pytest

from loopscale import InputError, LoopedConfig
from loopscale.model.size import DEEPEST, memory, parameters_of, require_depth, require_room
from tests.helpers import tiny_config, tiny_model

HUGE = 10**9


@pytest.mark.parametrize(
    "edit", [{}, {"position_embedding": "rope"}, {"tie_word_embeddings": False, "exit_gate": True}]
)
def test_parameters_are_counted_without_making_them(edit):
    assert parameters_of(tiny_config(**edit)) == tiny_model(**edit).num_parameters()


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("vocab_size", HUGE, "at least .* GB of memory"),
        ("hidden_size", HUGE, "memory"),
        ("intermediate_size", HUGE, "at least .* of memory"),
        ("max_position_embeddings", HUGE, "at least .* of memory"),
        ("num_loops", HUGE, "1,000,000,000 loops, 2,000,000,000 layers .* take at least "),
        ("num_loops", 10_000, "each pass would take at least"),
        ("num_stack_layers", HUGE, "layers one after another"),
        ("num_prelude_layers", HUGE, "layers one after another"),
        ("num_coda_layers", HUGE, "layers one after another"),
        ("trained_loops", HUGE, "loops"),
    ],
)
def test_an_absurd_size_is_told_with_what_it_would_need(name, size, said):
    began = time.process_time()
    with pytest.raises(InputError, match=rf"^config\.json .*{said}"):
        require_room(tiny_config(**{name: size}), "config.json")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", [f.name for f in fields(LoopedConfig) if f.type in (int, int | None)])
def test_any_size_of_the_configuration_is_refused_or_let_through_soon(name):
    began = time.process_time()
    with suppress(InputError):
        require_room(tiny_config(**{name: HUGE}), "config.json")
    assert time.process_time() - began < 1


def test_what_a_step_keeps_counts_unless_loops_are_recomputed():
    config = tiny_config(num_loops=1000, max_position_embeddings=16)
    tokens = memory() // (16 * 2 * 1000 * 2 * 2)
    with pytest.raises(InputError, match=r"what a step of .* tokens keeps"):
        require_room(config, "this run", tokens)
    require_room(config, "this run", tokens, kept=False)
    require_room(config, "this run")


def test_a_deep_model_that_can_be_run_is_let_through():
    require_depth("it", DEEPEST - 1)
    with pytest.raises(InputError, match="stay below 10,000 layers"):
        require_depth("it", DEEPEST // 2, 2)


@pytest.mark.parametrize("part", [{"initial_state": "noise", "injection": "linear"}, {"relaxation": "blind"}])
def test_noise_of_every_position_is_counted_and_not_drawn(part):
    with pytest.raises(InputError, match="of memory"):
        require_room(tiny_config(**part, position_embedding="rope", max_position_embeddings=10**12), "config.json")
