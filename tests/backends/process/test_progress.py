"""Recorded lines, and the real programs where they are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from task_daemon.backends.process.progress import PARSERS, lines_of, newest
from task_daemon.core.model import Progress

MIB = 1 << 20


@pytest.mark.parametrize(
    ("parser", "line", "progress"),
    [
        ("percent", "copied 12% of 41.5 %", Progress(percent=41.5)),
        ("percent", "disk at 250%", Progress(percent=100.0)),
        ("percent", "no number here: %", None),
        ("qemu-img", "    (14.00/100%)", Progress(percent=14.0)),
        ("qemu-img", "qemu-img: error while writing", None),
        (
            "rsync",
            "     87,326,720  41%   79.74MB/s    0:00:01  ",
            Progress(percent=41.0, done=87_326_720, unit="bytes"),
        ),
        ("rsync", "    209,715,200 100%  262.44MB/s    0:00:00 (xfr#1, to-chk=0/2)", Progress(100.0, 209_715_200, unit="bytes")),
        ("rsync", "         87.33M  41%   79.74MB/s    0:00:01", Progress(percent=41.0)),
        ("rsync", "sending incremental file list", None),
        (
            "restic",
            '{"message_type":"status","percent_done":0.15,"total_files":2,"total_bytes":209715200,"bytes_done":31457280}',
            Progress(percent=15.0, done=31_457_280, total=209_715_200, unit="bytes"),
        ),
        ("restic", '{"message_type":"status","percent_done":0}', Progress(done=0, unit="bytes")),
        (
            "restic",
            '{"message_type":"summary","files_new":2,"total_bytes_processed":209715200,"snapshot_id":"5fb7f1a2"}',
            Progress(percent=100.0, done=209_715_200, total=209_715_200, unit="bytes"),
        ),
        ("restic", '{"message_type":"error","error":{}}', None),
        ("restic", '{"message_type":"status","percent_do', None),
        ("restic", "Fatal: unable to open repository", None),
    ],
)
def test_line_is_understood_when_it_is_the_programs_own(parser: str, line: str, progress: Progress | None) -> None:
    assert PARSERS[parser](line) == progress


def test_newest_progress_counts_when_other_lines_follow() -> None:
    output = "    (1.00/100%)\r    (2.00/100%)\rwarning: slow disk\n"

    assert newest(output, PARSERS["qemu-img"]) == Progress(percent=2.0)


def test_nothing_is_known_when_nothing_was_printed() -> None:
    assert newest("", None) is None
    assert newest("\n\r\n", PARSERS["percent"]) is None


def test_line_cut_off_by_the_tail_is_not_taken_for_progress() -> None:
    """The tail begins anywhere, also in the middle of a line; the newest line is whole."""
    assert newest(
        ',"percent_done":0.9}\n{"message_type":"status","percent_done":0.5,"total_bytes":2,"bytes_done":1}', PARSERS["restic"]
    ) == (Progress(percent=50.0, done=1, total=2, unit="bytes"))


@pytest.mark.live
@pytest.mark.usefixtures("qemu")
def test_progress_is_read_when_real_qemu_img_converts(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"\1" * (8 * MIB))
    argv = ["qemu-img", "convert", "-p", "-O", "qcow2", str(tmp_path / "a.raw"), str(tmp_path / "a.qcow2")]
    output = subprocess.run(argv, capture_output=True, check=True, timeout=30).stdout.decode()

    assert newest(output, PARSERS["qemu-img"]) == Progress(percent=100.0)
    assert len(lines_of(output)) > 1


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed here")
def test_progress_is_read_when_real_rsync_copies(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\1" * (8 * MIB))
    argv = ["rsync", "--info=progress2", str(tmp_path / "a"), str(tmp_path / "b")]
    output = subprocess.run(argv, capture_output=True, check=True, timeout=30, env={"LANG": "C.UTF-8"}).stdout.decode()

    assert newest(output, PARSERS["rsync"]) == Progress(percent=100.0, done=8 * MIB, unit="bytes")
