import os
from collections.abc import Callable

import pytest

from task_client.process import own_pid
from tests.client.forking import FORKS, in_child


@pytest.mark.parametrize("fork", FORKS)
def test_child_knows_that_it_is_one_whoever_forked(fork: Callable[[], int]) -> None:
    assert own_pid() == os.getpid()

    assert in_child(fork, lambda: [own_pid() == os.getpid() for _ in range(2)]) == "[True, True]"
    assert own_pid() == os.getpid()
