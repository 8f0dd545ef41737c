"""JSON as it is sent: compact, in UTF-8, without NaN."""

import json
from json import encoder
from typing import Any

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def text_of(value: Any) -> str:
    """Raises ValueError and TypeError as `json.JSONEncoder`, which gets itself ready anew for each value: as long as its work."""
    if _pieces is None:
        return _encoder.encode(value)
    try:
        return "".join(_pieces(value, 0))
    except RecursionError:
        return _encoder.encode(value)  # which says it if the value contains itself


def _prepared() -> Any:
    """What does the work inside `json.JSONEncoder`; None in a Python that has nothing like it."""
    make = getattr(encoder, "c_make_encoder", None)
    try:
        return make and make(None, _encoder.default, encoder.encode_basestring, None, ":", ",", False, False, False)
    except TypeError:
        return None


_pieces = _prepared()
