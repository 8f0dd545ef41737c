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
