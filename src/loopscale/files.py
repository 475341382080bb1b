"""Former names of `loopscale.storage`."""

from loopscale.storage import check_writable, plain, write_json

__all__ = ["check_writable", "plain", "write_json"]
