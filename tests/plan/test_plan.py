"""A plan's arithmetic, its notes, and what it refuses."""

import json
from dataclasses import replace

import pytest

from loopscale import InputError
from loopscale.cli.main import main
from loopscale.model import LoopedForCausalLM
from loopscale.plan import LIBRARIES, Circumstances, Device, StepCost, device_called, device_of, plan_run, plan_tables
from loopscale.train import DataConfig, RunConfig, TrainConfig
from tests.helpers import TINY, shapes_unchecked, tiny_config, tiny_model

SIZES = {k: v for k, v in TINY.items() if k != "vocab_size"}
CARD = Device("card", 0.05, 100.0, "a test")
OPTIONS = ["--model.hidden_size=16", "--model.num_attention_heads=2", "--data.sequence_length=16"]


def tiny_run(**train):
    data = DataConfig(sequence_length=16)
    return RunConfig(SIZES, data, TrainConfig(**{"batch_size": 4, "max_steps": 10, **train}))


@pytest.fixture(scope="module")
def planned():
    with shapes_unchecked():
        return plan_run(tiny_run(), Circumstances(CARD, devices=2, tokens=1e9, share_of_peak=0.5, price=2.0))


@pytest.fixture
def quick(monkeypatch, unchecked_shapes):
    """Take steps for granted: their cost is a line, less steep once logits come in chunks."""

    def cost(config, batch, sequence, *, depth, checkpoint_loops=False, **_):
        kept = (10_000 if checkpoint_loops else 50_000 * depth["gradient_loops"]) * batch
        return StepCost(batch, sequence, kept, 400_000 + kept + 20_000 * min(batch, 64), depth["loops_"] * batch)

    def step(config, batch, sequence, *, depth, **kwargs):
        return cost(config, batch, sequence, depth={**depth, "loops_": depth["num_loops"]}, **kwargs)

    monkeypatch.setattr("loopscale.plan.planner.step_cost", step)


def test_parameters_are_the_model_s(planned):
    model = LoopedForCausalLM(tiny_config(vocab_size=256))
    assert planned.parameters.total == model.num_parameters()
    assert planned.parameters.loop == sum(p.numel() for p in model.model.layers.parameters())
    assert planned.vocabulary == 256  # bytes


def test_memory_is_the_sum_of_its_parts_and_copies_exchange_gradients(planned):
    memory = planned.kept.memory
    total = planned.parameters.total
    assert (memory.weights, memory.gradients, memory.optimizer, memory.buckets) == tuple(
        4 * n * total for n in (1, 1, 2, 1)
    )
    assert planned.kept.total_bytes == memory.total == 20 * total + memory.working
    assert planned.checkpointed.memory.working < memory.working


def test_time_and_cost_follow_from_the_operations(planned):
    mode = planned.kept
    seconds = 1e9 * mode.flops_per_token / (2 * 100e12 * 0.5)
    assert mode.hours == pytest.approx(seconds / 3600) and mode.cost == pytest.approx(mode.hours * 2 * 2.0)
    assert planned.checkpointed.flops_per_token > mode.flops_per_token


def test_twice_the_loops_cost_twice_and_keep_twice(planned):
    twice, now = planned.doubled["kept"], planned.kept
    assert twice.flops_per_token / now.flops_per_token == pytest.approx(2, rel=0.01)
    assert twice.memory.kept / now.memory.kept == pytest.approx(2, rel=0.1)
    assert twice.memory.weights == now.memory.weights
    again = planned.doubled["checkpointed"].memory.working / planned.checkpointed.memory.working
    assert again < 1.5


def test_the_largest_micro_batch_fits_and_a_larger_one_does_not(quick):
    on = Circumstances(CARD, devices=2)
    found = plan_run(tiny_run(), on)
    most = found.kept.largest_micro_batch
    fits = [plan_run(tiny_run(batch_size=batch), on).kept.fits for batch in (most, most + 1 + most // 20)]
    assert fits == [True, False] and found.checkpointed.largest_micro_batch > most


def test_shards_are_divided_and_said_to_be_estimated(quick):
    sharded = plan_run(tiny_run(shard=True), Circumstances(CARD, devices=4))
    assert sharded.kept.memory.optimizer == 8 * sharded.parameters.total // 4 and sharded.kept.memory.gathered > 0
    assert any("estimate" in note for note in sharded.notes)


def test_a_cpu_has_libraries_and_holes_beside_tensors_and_multiplies_in_what_it_can(quick, monkeypatch):
    monkeypatch.setattr("loopscale.plan.planner.cpu_multiplies_bf16", lambda: False)
    cpu, gpu = (plan_run(tiny_run(), Circumstances(device)) for device in (device_of("cpu"), CARD))
    memory = cpu.kept.memory
    assert memory.total == memory.tensors + memory.outside and memory.outside == round(LIBRARIES + 0.2 * memory.tensors)
    assert gpu.kept.memory.outside == 0 and (cpu.precision, gpu.precision) == ("float32", "bf16")
    named = [[row[0] for row in plan_tables(plan)[1].rows] for plan in (cpu, gpu)]
    assert ["libraries, and holes of the heap" in names for names in named] == [True, False]


def test_what_a_plan_leaves_aside_is_said(quick):
    found = plan_run(tiny_run(compile=True), Circumstances(CARD, devices=1000, tokens=100.0))
    assert [note.partition(" ")[0] for note in found.notes] == ["a", "train.compile"]
    assert "64,000 tokens on 1,000 devices, more than the 100" in found.notes[0]


def test_muon_keeps_one_number_of_a_matrix(quick):
    adamw, muon = (plan_run(tiny_run(optimizer=name), Circumstances(CARD)) for name in ("adamw", "muon"))
    model = tiny_model(vocab_size=256)
    matrices = sum(p.numel() for name, p in model.model.layers.named_parameters() if "proj" in name)
    assert adamw.kept.memory.optimizer - muon.kept.memory.optimizer == 4 * matrices


def test_drawn_loops_are_planned_by_their_mean_and_their_most(quick):
    depth = {"kind": "uniform", "low": 1, "high": 5, "with_gradient": 2}
    found = plan_run(tiny_run(depth=depth), Circumstances(CARD))
    assert (found.loops, found.loops_with_gradient) == (3, 2) and any("loops are drawn" in note for note in found.notes)


def test_a_model_met_once_is_worth_its_weights(planned):
    once, *_ = planned.alternatives
    assert once.loops == 1 and once.equivalent == once.parameters
    own = next(one for one in planned.alternatives if one.loops == planned.loops)
    others = planned.parameters.total - planned.parameters.loop
    assert own.parameters == planned.parameters.total
    assert own.equivalent == pytest.approx(others + 3**0.46 * planned.parameters.loop, abs=1)


def test_a_card_is_known_by_what_its_driver_calls_it():
    names = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA A100-SXM4-80GB": "a100"}
    names |= {"NVIDIA GeForce RTX 4090": "rtx4090", "NVIDIA L40S": "l40s", "AMD Instinct MI300X": "mi300x"}
    assert {name: device_called(name).name for name in names} == names
    assert [device_called(name) for name in ("Some GPU 9000", "NVIDIA H100 PCIe", "NVIDIA H200 NVL")] == [None] * 3


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"devices": 0}, "--devices is 0"),
        ({"tokens": -1.0}, "--tokens is -1.0"),
        ({"share_of_peak": 1.5}, "--mfu is 1.5"),
        ({"device": replace(CARD, memory_gib=0.0)}, "--memory_gib is 0.0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        Circumstances(**{"device": CARD, **fields})
    with pytest.raises(InputError, match="h100"):
        device_of("h10")


def test_the_command_plans_a_folder_with_overrides_and_writes_json(quick, tmp_path, capsys):
    tiny_model(num_loops=2).save_pretrained(tmp_path / "model")
    out = tmp_path / "plan.json"
    words = [str(tmp_path / "model"), "--tokens=1e6", "--devices=2", "--peak_tflops=50", "--price=3", f"--json={out}"]
    assert main(["plan", *words, "--train.batch_size=2", "--model.num_loops=3"]) == 0
    found = json.loads(out.read_text())
    assert (found["loops"], found["vocabulary"], found["micro_batch"]) == (3, 31, 2)
    assert found["device"]["peak_tflops"] == 50 and found["kept"]["cost"] > 0
    printed = capsys.readouterr().out
    assert all(title in printed for title in ("Parameters", "Memory of one device", "Time and cost", "2604.21106"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "h10"], "h100"),
        (["nowhere"], "no config.json"),
        (["--mfu", "0"], "--mfu is 0.0"),
        (["--devices", "many"], "a whole number"),
        (["--model.intermediate_size", "4000000000000000000"], "larger than any memory"),
        (["--model.num_loops", "5000"], "plan at most 2,000"),
        (["--model.num_coda_layers", "1000000000"], "plan at most 2,000"),
        (["--train.batch_size", "1000000000"], "takes its logits in"),
        (["--model.vocab_size", "1000000000"], "at most 33,554,432"),
    ],
)
def test_the_command_answers_bad_input_in_a_sentence(words, sentence, capsys):
    assert main(["plan", *words, *OPTIONS]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error and len(error.strip().splitlines()) == 1
