"""Other people's weights, made into ours."""

from loopscale.convert.readout_blind_spot import from_readout_blind_spot

__all__ = ["from_readout_blind_spot"]
