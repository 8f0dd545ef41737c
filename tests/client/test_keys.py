from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from task_client.keys import AT_ONCE, new_key
from tests.client.forking import FORKS, in_child


def test_keys_are_all_different_when_threads_take_them() -> None:
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda _: new_key(), range(4 * AT_ONCE)))

    assert len(set(taken)) == 4 * AT_ONCE
    assert {len(key) for key in taken} == {32}


@pytest.mark.parametrize("fork", FORKS)
def test_no_key_is_given_twice_when_the_process_forks(fork: Callable[[], int]) -> None:
    new_key()  # and more are drawn in advance

    children = [in_child(fork, new_key) for _ in range(3)]

    assert len({new_key(), *children}) == 4
