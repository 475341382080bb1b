import pytest

from loopscale import InputError, LoopedConfig
from loopscale.model import preset_config


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple"),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"num_loops": 0}, "at least 1 loop"),
        ({"loop_weights": [1.0, 2.0]}, "one weight per loop"),
        ({"share_loop_norm": True}, "no norm to share"),
    ],
)
def test_sizes_that_do_not_fit_are_told_in_words(fields, words):
    with pytest.raises(InputError, match=words):
        LoopedConfig(**fields)


def test_unknown_preset_gets_a_guess():
    with pytest.raises(InputError, match="did you mean 'laptop'"):
        preset_config("labtop")


def test_virtual_depth_follows_the_loops():
    config = LoopedConfig(num_stack_layers=3, num_loops=4)
    assert config.num_hidden_layers == 12
    config.num_hidden_layers = 6
    assert config.num_loops == 2
    assert config.trained_loops == 4


def test_a_round_trip_keeps_every_field(tmp_path):
    config = LoopedConfig(num_loops=6, readout="raw", loop_weights=[1.0] * 6, supervision="exit_gate")
    config.save_pretrained(tmp_path)
    again = LoopedConfig.from_pretrained(tmp_path)
    assert {**again.to_dict(), "transformers_version": 0} == {**config.to_dict(), "transformers_version": 0}
    assert again.exit_gate
