"""Keys that are changed while the daemon runs."""

import asyncio
import base64
import logging
import os
from pathlib import Path

import pytest

from task_daemon.callbacks.keyring import LOOK_EVERY, KeyRing
from task_daemon.callbacks.signing import sign_all
from task_daemon.clock import FakeClock
from task_daemon.core.errors import ConfigError
from tests.waiting import eventually


def secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def write(path: Path, *lines: str) -> None:
    """Written anew beside it and moved into its place, as a careful person does."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text("\n".join(lines) + "\n")
    new.replace(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "key", secret())
    return tmp_path / "key"


def signatures(ring: KeyRing) -> list[str]:
    return sign_all(ring["default"], "msg_1", 1, b"{}").split()


def test_changed_file_is_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = KeyRing({"default": str(file)})
    (old,) = signatures(ring)
    with caplog.at_level(logging.INFO):
        ring.look()
        assert caplog.messages == []
        write(file, file.read_text().strip(), secret())
        ring.look()
        both = signatures(ring)
        assert (len(both), both[0]) == (2, old)
        with file.open("a") as open_file:
            open_file.write(f"{secret()}\n")
        ring.look()
        assert len(signatures(ring)) == 3
        write(file, secret())
        ring.look()
        assert len(signatures(ring)) == 1
        assert old not in signatures(ring)
    assert caplog.messages[0] == f"read key default again from {file}: 2 now sign"
    assert "whsec_" not in caplog.text


@pytest.mark.parametrize("trouble", ["gone", "open to others", "half written", "empty"])
def test_keys_of_before_go_on_signing_when_the_file_cannot_be_used(
    trouble: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing({"default": str(file)})
    before, text = signatures(ring), file.read_text()
    match trouble:
        case "gone":
            file.unlink()
        case "open to others":
            file.chmod(0o644)
        case "half written":
            file.write_text(text[:20])
        case "empty":
            file.write_text("")
    ring.look()
    ring.look()
    assert signatures(ring) == before
    (said,) = caplog.messages
    assert said.endswith("; its keys of before go on signing")
    assert str(file) in said
    assert text[6:20] not in said

    write(file, text.strip(), secret())
    ring.look()
    assert len(signatures(ring)) == 2


def test_file_that_cannot_be_used_at_the_start_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read key default"):
        KeyRing({"default": str(tmp_path / "nothing")})


async def test_files_are_looked_at_now_and_then(file: Path, clock: FakeClock) -> None:
    ring = KeyRing({"default": str(file)})
    following = asyncio.ensure_future(ring.follow(clock))
    await asyncio.sleep(0)
    write(file, secret(), secret())
    clock.advance(LOOK_EVERY)
    await asyncio.to_thread(eventually, "it is read", lambda: len(ring["default"]) == 2)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
