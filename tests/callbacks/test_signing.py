"""Signatures, with the standardwebhooks library as independent referee."""

import base64
import json
import os
import time
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from task_daemon.callbacks.signing import Key, read_keys, sign, sign_all
from task_daemon.core.errors import ConfigError

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 24).decode()
BODY = '{"type":"task.succeeded","data":{"näme":1}}'.encode()


def headers(signature: str, at: int) -> dict[str, str]:
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "callback.key"
    path.touch(mode=0o600)
    return path


def test_referee_accepts_signature_when_key_id_time_and_body_are_the_same() -> None:
    at = int(time.time())

    assert Webhook(OLD).verify(BODY, headers(sign(Key(OLD), "msg_1", at, BODY), at)) == json.loads(BODY)


@pytest.mark.parametrize(("msg_id", "shift", "body"), [("msg_2", 0, BODY), ("msg_1", 1, BODY), ("msg_1", 0, BODY + b" ")])
def test_referee_refuses_signature_when_anything_signed_differs(msg_id: str, shift: int, body: bytes) -> None:
    at = int(time.time())

    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY, headers(sign(Key(OLD), msg_id, at + shift, body), at))


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_receiver_with_old_or_new_key_accepts_when_keys_are_being_rotated(secret: str) -> None:
    at = int(time.time())

    assert Webhook(secret).verify(BODY, headers(sign_all([Key(NEW), Key(OLD)], "msg_1", at, BODY), at))


def test_all_keys_of_a_file_are_read_when_it_holds_several_lines(key_file: Path) -> None:
    key_file.write_text(f"# the new one first\n{NEW}\n\n{OLD}\n")

    keys = read_keys({"default": str(key_file)})

    assert sign_all(keys["default"], "m", 1, b"") == f"{sign(Key(NEW), 'm', 1, b'')} {sign(Key(OLD), 'm', 1, b'')}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_key_file_is_refused_when_others_may_read_or_write_it(key_file: Path, mode: int) -> None:
    key_file.write_text(OLD)
    key_file.chmod(mode)

    with pytest.raises(ConfigError, match=f"its mode {mode:04o} lets others .* run chmod 600"):
        read_keys({"default": str(key_file)})


@pytest.mark.parametrize(
    "text", ["", "# nothing", OLD.removeprefix("whsec_"), "whsec_!!!", "whsec_" + base64.b64encode(b"short").decode()]
)
def test_key_file_is_refused_without_showing_it_when_it_holds_no_good_key(key_file: Path, text: str) -> None:
    key_file.write_text(text)

    with pytest.raises(ConfigError, match="accepted is one key a line") as caught:
        read_keys({"default": str(key_file)})
    assert not text or text not in str(caught.value)


def test_all_bad_files_are_reported_when_there_are_several(key_file: Path, tmp_path: Path) -> None:
    binary = tmp_path / "binary.key"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)

    with pytest.raises(ConfigError) as caught:
        read_keys({"a": str(key_file), "b": os.path.join(tmp_path, "absent"), "c": str(tmp_path), "d": str(binary)})
    assert [mistake.split()[3] for mistake in caught.value.mistakes] == ["a", "b", "c", "d"]


def test_secret_is_not_shown_when_a_key_is_printed() -> None:
    assert OLD.removeprefix("whsec_")[:8] not in f"{Key(OLD)!r} {[Key(OLD)]} {Key(OLD)}"
    assert "oooo" not in repr(Key(OLD))
