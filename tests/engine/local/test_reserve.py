"""The reserve of a full disk, with the store around it; on a real full disk it is in tests/faults/test_disk.py."""

from pathlib import Path

from task_daemon.engine.local.reserve import NAME, Reserve


def test_reserve_takes_its_room_at_once(short_path: Path) -> None:
    reserve = Reserve(short_path, 64 * 1024)
    assert reserve.make()
    assert (short_path / NAME).stat().st_blocks * 512 >= 64 * 1024
    assert (short_path / NAME).stat().st_mode & 0o077 == 0


def test_reserve_is_kept_when_it_is_made_again(short_path: Path) -> None:
    reserve = Reserve(short_path, 64 * 1024)
    reserve.make()
    before = (short_path / NAME).stat()
    assert Reserve(short_path, 64 * 1024).make()
    assert (short_path / NAME).stat().st_ino == before.st_ino


def test_reserve_is_given_up_once_and_made_again(short_path: Path) -> None:
    reserve = Reserve(short_path, 64 * 1024)
    reserve.make()
    assert reserve.give_up()
    assert reserve.missing
    assert not reserve.give_up()
    assert reserve.make()
    assert not reserve.missing


def test_work_goes_on_without_a_reserve_when_there_is_no_room_for_it(short_path: Path) -> None:
    reserve = Reserve(short_path, 1 << 60)
    assert not reserve.make()
    assert reserve.missing
    assert list(short_path.iterdir()) == []
