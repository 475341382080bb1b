"""Pretrained models made into looped ones: surgery, the choice of layers, healing."""

from loopscale.retrofit.looped_folder import RetrofitRecord, retrofit_folder
from loopscale.retrofit.surgery import retrofit

__all__ = ["RetrofitRecord", "retrofit", "retrofit_folder"]
