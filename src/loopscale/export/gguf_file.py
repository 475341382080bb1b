"""GGUF file of a looped model, as llama.cpp and what is built on it read it (architecture `nanbeige`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from loopscale.convert import to_nanbeige
from loopscale.errors import InputError, unknown
from loopscale.export.tensors import gguf_tensors
from loopscale.export.vocabulary import Vocabulary, vocabulary_of
from loopscale.model import LoopedForCausalLM
from loopscale.storage import check_name, check_writable

if TYPE_CHECKING:
    from gguf import GGUFWriter

logger = logging.getLogger(__name__)

ARCHITECTURE = "nanbeige"
MOST_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS, which counts every loop's
# our name of a type -> its names in the gguf package, of tensors and of files
DTYPES: Mapping[str, tuple[str, str]] = {
    "f32": ("F32", "ALL_F32"),
    "f16": ("F16", "MOSTLY_F16"),
    "bf16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}


def to_gguf(
    model: LoopedForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    dtype: str = "f32",
    *,
    num_loops: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the model and its tokenizer as one GGUF file that llama.cpp runs, and return its path.

    The file holds one depth, the trained one by default. It appears when it is whole.

    Args:
        model: a model that a Nanbeige can express: pre-norm, RoPE, readout through RMSNorm, and either a residual
            recurrence or an inter-loop norm shared with the readout.
        tokenizer: `bytes`, or a byte-level BPE tokenizer that cuts text as one llama.cpp knows.
        path: the file to write.
        dtype: of the matrices: f32, f16, bf16 or q8_0 (8 bits, a scale per 32); norms are always float32.
        num_loops: another depth than the trained one.
        overwrite: replace the file if it exists.

    Raises:
        InputError: a model or a tokenizer that cannot be expressed, with what it is; a file that is there or cannot be
            written; no gguf package.
    """
    if dtype not in DTYPES:
        raise unknown("type of weights", dtype, DTYPES)
    path = Path(path)
    check_name("writing to", path)
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(f"'{path}' exists: name another file, or pass --overwrite (overwrite=True) to replace it.")
    try:
        import gguf
    except ImportError as error:
        raise InputError("writing GGUF files needs the gguf package: pip install 'loopscale[gguf]'.") from error
    layers = model.config.num_stack_layers * (num_loops or model.num_loops)
    if layers > MOST_LAYERS:
        raise InputError(f"llama.cpp runs {MOST_LAYERS} layers at most, and this model's loops make {layers}.")
    weights, config = to_nanbeige(model, num_loops)
    vocabulary = vocabulary_of(tokenizer, config["vocab_size"], _ends(model))
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    check_writable("writing to", path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        writer = gguf.GGUFWriter(staging, ARCHITECTURE)
        _add_sizes(writer, config)
        writer.add_file_type(gguf.LlamaFileType[DTYPES[dtype][1]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_vocabulary(writer, vocabulary)
        _add_tensors(writer, gguf_tensors(weights, config), gguf.GGMLQuantizationType[DTYPES[dtype][0]])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        staging.replace(path)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}.") from error
    finally:
        staging.unlink(missing_ok=True)
    return path


def _ends(model: LoopedForCausalLM) -> Sequence[int]:
    """Return the ids at which the model itself stops writing."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else model.config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _add_sizes(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    """Add a Nanbeige's sizes under llama.cpp's keys."""
    writer.add_name(f"loopscale-{config['num_hidden_layers']}x{config['num_loops']}-{config['hidden_size']}")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])  # of the stack; llama.cpp multiplies by the loops itself
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_uint32(f"{ARCHITECTURE}.num_loops", config["num_loops"])
    writer.add_bool(f"{ARCHITECTURE}.skip_loop_final_norm", config["skip_loop_final_norm"])


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")  # byte-level BPE, whoever's
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.bos)
    for name, token in vocabulary.ends.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _add_tensors(writer: GGUFWriter, tensors: Iterable[tuple[str, Tensor]], kind: Any) -> None:
    """Add matrices as `kind`, norms in float32; a matrix that does not divide into the kind's blocks in float16."""
    import gguf

    single, half = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16
    block, uneven = gguf.GGML_QUANT_SIZES[kind][0], 0
    for name, tensor in tensors:
        fits = tensor.shape[-1] % block == 0
        uneven += tensor.ndim == 2 and not fits
        chosen = single if tensor.ndim == 1 else kind if fits else half
        writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), chosen), raw_dtype=chosen)
    if uneven:
        logger.warning("%d matrices have rows that are no multiple of %d: they stay in f16", uneven, block)
