"""Recipes as shipped: the large preset on parquet shards with a tokenizer of a folder, and Slurm's template."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from loopscale.cli.main import main
from loopscale.cli.options import parser_of

ROOT = Path(__file__).parents[2]
SBATCH = ROOT / "examples" / "train.sbatch"
SMALL = ["--model.hidden_size=16", "--model.num_attention_heads=2", "--model.num_stack_layers=1"]
SHORT = ["--data.sequence_length=16", "--model.max_position_embeddings=16", "--train.warmup_steps=0"]
STEPS = ["--train.max_steps=2", "--train.log_every=1", "--train.save_every=2", "--train.batch_size=4"]


@pytest.fixture
def shards(tmp_path):
    """Write shards as FineWeb has them: text beside other columns."""
    folder = tmp_path / "fineweb" / "sample"
    folder.mkdir(parents=True)
    for shard in range(2):
        text = [f"page {i} of shard {shard} says that {i * i % 97} loops are {i % 13} steps" for i in range(40)]
        columns = {"text": text, "id": [f"urn:{i}" for i in range(40)], "language_score": [0.9] * 40}
        pq.write_table(pa.table(columns), folder / f"{shard:03d}_00000.parquet")
    return folder


@pytest.fixture
def tokenizer(tmp_path):
    """Save a byte-level tokenizer without merges, with an end of text."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE({name: i for i, name in enumerate([*names, "<|endoftext|>"])}, []))
    bytes_.pre_tokenizer, bytes_.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    folder = tmp_path / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


def test_the_large_preset_trains_on_parquet_shards_with_a_tokenizer_of_its_own(
    shards, tokenizer, tmp_path, monkeypatch, unchecked_shapes
):
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    own = [f"--data.corpus={shards}", f"--data.tokenizer={tokenizer}", f"--out={tmp_path / 'run'}"]
    config = ["--config", str(ROOT / "configs" / "1.4b-fineweb.yaml")]
    assert main(["train", *config, *own, *SMALL, *SHORT, *STEPS]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["preset"] == "1.4b" and record["config"]["train"]["optimizer"] == "muon"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert (model.config.vocab_size, model.num_loops, model.config.hidden_size) == (257, 4, 16)


def test_the_template_of_slurm_is_sound_bash():
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, str(SBATCH)], check=True)


def test_the_template_starts_a_launcher_on_every_machine_with_the_options_given(tmp_path):
    said = tmp_path / "said"
    for name, script in {"scontrol": "printf 'node7\\nnode8\\n'", "srun": f'printf "%s\\n" "$@" > {said}'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "42"}
    slurm |= {"SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "32", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    options = ["--preset", "1.4b", "--train.shard", "true", "--out", "a folder"]
    subprocess.run(["bash", str(SBATCH), *options], env={**os.environ, **slurm}, check=True)
    words = said.read_text().splitlines()
    launcher, ours = words[: words.index("-m")], words[words.index("-m") :]
    assert launcher[0] == "torchrun" and launcher[launcher.index("--rdzv_endpoint") + 1] == "node7:29500"
    assert launcher[launcher.index("--nnodes") + 1] == "2" and launcher[launcher.index("--nproc_per_node") + 1] == "4"
    assert ours[:3] == ["-m", "loopscale", "train"] and ours[3:] == options
    assert parser_of("train", options).read(options).train.shard is True
