"""The documented encoding of ``/v1``: compact JSON in which every string is percent-encoded, save its spaces."""

import json
from typing import Any
from urllib.parse import quote, unquote


def json2str(value: Any) -> str:
    """Return a value as the text that ``/v1`` sends. Keys are encoded too; what JSON has no word for is named by repr.

    >>> json2str({"message": "50% of /data used", "success": True})
    '{"message":"50%25 of %2Fdata used","success":true}'
    """
    return json.dumps(_each(value, lambda text: quote(text, safe=" ", errors="replace")), separators=(",", ":"))


def str2json(text: str | bytes) -> Any:
    """Return the value that a text of ``/v1`` means.

    Raises:
        ValueError: it is not JSON of Unicode text, or nested deeper than anything the API knows.

    >>> str2json('{"message":"50%25 of %2Fdata used"}')
    {'message': '50% of /data used'}
    """
    try:
        return _each(json.loads(text, parse_constant=_refuse), _decode)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _decode(text: str) -> str:
    text.encode()  # half of a surrogate pair is no text: UnicodeEncodeError is a ValueError
    return unquote(text)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(str(key)): _each(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each(item, change) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return change(repr(value))
