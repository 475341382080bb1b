"""Other people's weights, made into ours."""

from loopscale.convert.checkpoint import (
    FOLDERS,
    checkpoint_of,
    convert_checkpoint,
    load_huginn,
    load_nanbeige,
    load_native,
    load_ouro,
    load_weight_file,
    read_as_native,
)
from loopscale.convert.files.checkpoint_folder import kind_of_config, local_folder, read_config
from loopscale.convert.files.tokenizer import read_tokenizer
from loopscale.convert.files.weights import is_weight_file
from loopscale.convert.huginn import from_huginn, to_huginn
from loopscale.convert.nanbeige import from_nanbeige, to_nanbeige
from loopscale.convert.ouro import from_ouro, to_ouro
from loopscale.convert.parcae import from_parcae, to_parcae
from loopscale.convert.readout_blind_spot import from_readout_blind_spot, load_readout_blind_spot

__all__ = [
    "FOLDERS",
    "checkpoint_of",
    "convert_checkpoint",
    "from_huginn",
    "from_nanbeige",
    "from_ouro",
    "from_parcae",
    "from_readout_blind_spot",
    "is_weight_file",
    "kind_of_config",
    "load_huginn",
    "load_nanbeige",
    "load_native",
    "load_ouro",
    "load_readout_blind_spot",
    "load_weight_file",
    "local_folder",
    "read_as_native",
    "read_config",
    "read_tokenizer",
    "to_huginn",
    "to_nanbeige",
    "to_ouro",
    "to_parcae",
]
