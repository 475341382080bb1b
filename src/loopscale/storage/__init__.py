"""Storage: dataclasses as JSON and back, files whole or not at all, and places looked at before they are written to.

Every command starts here, so importing the package brings in neither torch nor pydantic.
"""

from loopscale.storage.json_files import is_of_the_dead, is_staging, read_json, sweep, write_json
from loopscale.storage.places import check_name, check_writable, is_text, kind_of, require_no_stream, resolved
from loopscale.storage.typed_json import REST, from_json, parse_json, plain, to_json
from loopscale.storage.yaml_document import check_yaml

__all__ = [
    "REST",
    "check_name",
    "check_writable",
    "check_yaml",
    "from_json",
    "is_of_the_dead",
    "is_staging",
    "is_text",
    "kind_of",
    "parse_json",
    "plain",
    "read_json",
    "require_no_stream",
    "resolved",
    "sweep",
    "to_json",
    "write_json",
]
