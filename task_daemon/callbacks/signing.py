"""Signatures of Standard Webhooks 1.0: HMAC-SHA256 over id, time and body, with keys from files that nobody else can read."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping

from task_daemon.callbacks.secret_file import read_secret
from task_daemon.core.errors import ConfigError

PREFIX = "whsec_"
KEY_BYTES = range(24, 65)  # what Standard Webhooks 1.0 asks of a symmetric key
HOW_TO_MAKE = f'accepted is one key a line, "{PREFIX}" and 24 to 64 random bytes in base64'


class Key:
    """A secret that signs. It never shows itself."""

    __slots__ = ("_begun",)

    def __init__(self, text: str) -> None:
        """Take `whsec_<base64>`. Raises ValueError, without the text, when it is not that."""
        try:
            secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"a key is not base64; {HOW_TO_MAKE}") from None
        if not text.startswith(PREFIX) or len(secret) not in KEY_BYTES:
            raise ValueError(f"a key has the wrong form or length; {HOW_TO_MAKE}")
        self._begun = hmac.new(secret, digestmod=hashlib.sha256)  # a copy of it takes a third of what beginning anew does

    def __repr__(self) -> str:
        return "Key(...)"

    def digest(self, content: bytes) -> bytes:
        mac = self._begun.copy()
        mac.update(content)
        return mac.digest()


def sign(key: Key, msg_id: str, timestamp: int, body: bytes) -> str:
    """One signature, `v1,<base64>`. `timestamp` in whole Unix seconds, the one of the header."""
    content = f"{msg_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(key.digest(content)).decode("ascii")


def sign_all(keys: Iterable[Key], msg_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header: one signature for each key, so that a receiver may know the old or the new one."""
    return " ".join(sign(key, msg_id, timestamp, body) for key in keys)


def read_keys(files: Mapping[str, str]) -> dict[str, tuple[Key, ...]]:
    """Keys by name, from files with one key a line; more than one during a rotation. Empty lines and `#` comments are fine.

    Raises ConfigError with a sentence for every file that cannot be used.
    """
    keys: dict[str, tuple[Key, ...]] = {}
    mistakes = []
    for name, path in files.items():
        try:
            keys[name] = _read(path)
        except OSError as error:
            mistakes.append(f"cannot read key {name} from {path}: {error.strerror}")
        except ValueError as error:
            mistakes.append(f"cannot use key {name} from {path}: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    return keys


def _read(path: str) -> tuple[Key, ...]:
    lines = [line.strip() for line in read_secret(path).splitlines()]
    found = tuple(Key(line) for line in lines if line and not line.startswith("#"))
    if not found:
        raise ValueError(f"it holds no key; {HOW_TO_MAKE}")
    return found
