"""What explain says of callbacks that wait; the sentences about the task itself are tested through the manager."""

from msgspec.structs import replace

from task_daemon.core.model import Attempt, Delivery, DeliveryState, Mode, Owner, State, Task, TaskError
from task_daemon.core.ports import Times
from task_daemon.core.view import rfc3339
from task_daemon.tracking.why import explained, waiting_for

TASK = Task(
    uid="u", id="d", action="backup", zone="z", mode=Mode.TRACK, owner=Owner(1, 1), created_at=1.0, timeout=9.0, deadline_at=10.0
)
ENDED = replace(TASK, state=State.FAILED, error=TaskError("backend", "no space", {"errno": 28}))
ZONE = {"zone": "z", "state": "ok", "last_error": None}
FAILED = Attempt(at=5.0, seconds=0.1, status=503, error="HTTP 503")


def delivery(name: str, **members: object) -> Delivery:
    found = Delivery(
        id=name, uid="u", task_seq=2, part=0, type="task.failed", via="webhook", target="http://h", method="POST",
        url="http://h/x", body=b"{}", owner_uid=1, created_at=4.0, next_at=7.0,
    )  # fmt: skip
    return replace(found, **members)


def test_callbacks_say_what_each_waits_for() -> None:
    rows = [
        delivery("gone", state=DeliveryState.DELIVERED, tries=(Attempt(at=4.0, status=200),)),
        delivery("first", tries=(FAILED,)),
        delivery("second"),
    ]
    found = explained(ENDED, ZONE, Times(None, None), rows, (), now=6.0)["callbacks"]

    assert [each["waits_for"] for each in found] == [None, "its next try", "callback first of the same task, which goes first"]
    assert [each["last_answer"] and each["last_answer"]["status"] for each in found] == [200, 503, None]
    assert found[1]["next_at"] == rfc3339(7.0)


def test_callback_that_was_not_sent_waits_for_its_first_try() -> None:
    (found,) = explained(ENDED, ZONE, Times(None, None), [delivery("new")], ("http://other",), now=6.0)["callbacks"]

    assert found["waits_for"] == "its first try"


def test_held_target_is_named() -> None:
    rows = [delivery("first", tries=(FAILED,))]
    found = explained(ENDED, ZONE, Times(None, None), rows, ("http://h",), now=6.0)

    held = "its target http://h fails again and again and is only probed"
    assert found["waiting_for"] == f"the receiver of callback first: HTTP 503; next try {rfc3339(7.0)}; {held}"
    assert found["callbacks"][0]["waits_for"] == "its target http://h, which fails again and again and is only probed"


def test_times_and_error_are_told_with_the_clock_they_belong_to() -> None:
    found = explained(ENDED, None, Times(2.0, 3.0), [], (), now=6.0)

    assert (found["now"], found["last_polled_at"], found["next_poll_at"]) == (rfc3339(6.0), rfc3339(2.0), None)
    assert found["error"] == {"kind": "backend", "message": "no space"}
    assert found["zone"] == {"zone": "z", "state": "not configured"}
    assert explained(TASK, ZONE, Times(2.0, 3.0), [], (), now=6.0)["next_poll_at"] == rfc3339(3.0)


def test_ended_task_waits_for_nothing_when_its_callbacks_were_accepted() -> None:
    rows = [delivery("a", state=DeliveryState.DELIVERED), delivery("b", state=DeliveryState.ACKED)]

    assert waiting_for(ENDED, ZONE, rows, ()) == "nothing: it has ended and everybody was told"
