"""Other people's weights, made into ours."""

from loopscale.convert.ouro import from_ouro, to_ouro
from loopscale.convert.readout_blind_spot import from_readout_blind_spot

__all__ = ["from_ouro", "from_readout_blind_spot", "to_ouro"]
