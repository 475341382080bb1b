import pytest

from loopscale import InputError, LoopedConfig
from loopscale.model import preset_config
from loopscale.model.config import NAMES


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple"),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"num_loops": 0}, "at least 1 loop"),
        ({"loop_weights": [1.0, 2.0]}, "one weight per loop"),
        ({"share_loop_norm": True}, "no norm to share"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"trained_loops": 0}, "trained_loops is 0"),
        ({"norm_penalty_coef": float("nan")}, "norm_penalty_coef is nan"),
        ({"loop_weights": [0.0] * 4}, "one of them above 0"),
    ],
)
def test_sizes_that_do_not_fit_are_told_in_words(fields, words):
    with pytest.raises(InputError, match=words):
        LoopedConfig(**fields)


def test_an_odd_head_size_needs_no_rope():
    assert LoopedConfig(hidden_size=34, num_attention_heads=2).head_dim == 17
    with pytest.raises(InputError, match="even head size"):
        LoopedConfig(hidden_size=34, num_attention_heads=2, position_embedding="rope")


def test_a_head_size_of_its_own_need_not_divide_the_state():
    config = LoopedConfig(hidden_size=34, num_attention_heads=4, head_dim=6, position_embedding="rope")
    assert LoopedConfig.from_dict(config.to_dict()).head_dim == 6
    with pytest.raises(InputError, match="head_dim is 7"):
        LoopedConfig(hidden_size=32, num_attention_heads=4, head_dim=7, position_embedding="rope")
    with pytest.raises(InputError, match="head_dim is 0: give at least 1"):
        LoopedConfig(head_dim=0)


def test_unknown_preset_gets_a_guess():
    with pytest.raises(InputError, match="did you mean 'laptop'"):
        preset_config("labtop")


def test_virtual_depth_follows_the_loops():
    config = LoopedConfig(num_stack_layers=3, num_loops=4)
    assert config.num_hidden_layers == 12
    with pytest.raises(InputError, match="multiple of the stack's 3 layers"):
        config.num_hidden_layers = 2
    config.num_hidden_layers = 6
    assert config.num_loops == 2
    assert config.trained_loops == 4


def test_json_writes_one_for_one_point_zero_and_wrong_values_are_told():
    config = LoopedConfig.from_dict({"dropout": 0, "loop_weights": [0, 0, 0, 1]})
    assert config.loop_weights == [0.0, 0.0, 0.0, 1.0]
    with pytest.raises(InputError, match="unknown readout 'rawr': did you mean 'raw'"):
        LoopedConfig.from_dict({"readout": "rawr"})


@pytest.mark.parametrize("odd", [{"rms_norm_eps": 10**400}, {"loop_weights": 5}, {"id2label": 5}])
def test_values_that_transformers_trips_over_are_told(odd):
    with pytest.raises(InputError, match="not a loopscale model's configuration"):
        LoopedConfig.from_dict(odd)


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("odd", [0, 0.5, True, []])
def test_a_name_of_transformers_that_is_none_is_told(name, odd):
    with pytest.raises(InputError, match=f"^{name} is .*: give a name"):
        LoopedConfig.from_dict({name: odd})


def test_a_round_trip_keeps_every_field(tmp_path):
    config = LoopedConfig(num_loops=6, readout="raw", loop_weights=[1.0] * 6, supervision="exit_gate")
    config.save_pretrained(tmp_path)
    again = LoopedConfig.from_pretrained(tmp_path)
    assert {**again.to_dict(), "transformers_version": 0} == {**config.to_dict(), "transformers_version": 0}
    assert again.exit_gate
