import subprocess
import sys
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from task_daemon.core.uids import new_uid


def test_uid_is_a_version_7_uuid_with_its_time() -> None:
    uid = UUID(new_uid(1_900_000_000.123))
    assert (uid.version, uid.variant) == (7, "specified in RFC 4122")
    assert uid.int >> 80 == 1_900_000_000_123


@given(st.integers(min_value=0, max_value=4_000_000_000))
def test_uids_are_different_and_sorted_when_made_within_a_millisecond(now: int) -> None:
    uids = [new_uid(float(now)) for _ in range(50)]
    assert len(set(uids)) == 50
    assert uids == sorted(uids)


def test_uids_stay_sorted_when_the_counter_runs_over_or_the_clock_steps_back() -> None:
    uids = [new_uid(3_000_000_000.0 - n / 10_000) for n in range(10_000)]
    assert uids == sorted(set(uids))


FORKING = """
import os
from task_daemon.core.uids import new_uid
new_uid(1.0)
if os.fork() == 0:
    os.write(1, new_uid(2.0).encode())
    os._exit(0)
os.wait()
os.write(1, new_uid(2.0).encode())
"""


def test_a_forked_process_gives_names_of_its_own() -> None:
    """Although the random bits of the next names were there before."""
    text = subprocess.run([sys.executable, "-c", FORKING], check=True, capture_output=True, text=True, timeout=60).stdout

    assert len(text) == 72
    assert text[19:36] != text[55:]


def test_the_ends_of_names_are_random_in_every_bit() -> None:
    ends = [UUID(new_uid(1_900_000_000.0)).int & (1 << 62) - 1 for _ in range(2000)]
    often = [sum(end >> bit & 1 for end in ends) for bit in range(62)]

    assert len(set(ends)) == 2000
    assert min(often) > 700
    assert max(often) < 1300
