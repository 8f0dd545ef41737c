"""What is refused before anything is stored, and in which words; what a task is made of if it is not."""

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from task_daemon.clock import FakeClock
from task_daemon.core.errors import InvalidBody, Refusal, UnknownAction, UnknownZone
from task_daemon.core.model import CallbackTarget, Draft, Mode, Task
from task_daemon.core.ports import Zone
from task_daemon.tracking.admit import DEFAULT_TIMEOUT, Admission, Registration, pointer_of
from tests.making import NOW
from tests.tracking.outside import HOOK, OWNER, Outside, lane

ZONES = {
    "z1": Zone("z1", "test", Outside("backup", "fixed")),
    "z2": Zone("z2", "test", Outside("clone")),
    "z3": Zone("z3", "test", Outside("clone")),
}


def admission(keys: tuple[str, ...] = ("default", "second"), zones: dict[str, Zone] = ZONES, **settings: float) -> Admission:
    return Admission(zones, lane, keys, FakeClock(NOW), **settings)


def registration(extra: dict[str, Any] | None = None, **members: Any) -> Registration:
    return Registration(Draft(**({"id": "d", "action": "backup", "zone": "z1"} | members)), extra)


def admitted(**members: Any) -> Task:
    return admission().task(registration(**members), OWNER)


def refused(kind: type[Refusal], **members: Any) -> tuple[str, list[tuple[str, str]]]:
    with pytest.raises(kind) as caught:
        admitted(**members)
    assert type(caught.value) is kind
    return caught.value.detail, list(caught.value.members)


# ---- what a task is made of


def test_a_registration_without_params_is_tracked_with_the_default_life() -> None:
    task = admitted()

    assert (task.mode, task.owner, task.created_at) == (Mode.TRACK, OWNER, NOW)
    assert (task.timeout, task.deadline_at) == (DEFAULT_TIMEOUT, NOW + 43_200)
    assert (task.handle, task.labels, task.extra, task.poll_interval, task.revision) == (None, None, None, None, 1)


def test_a_registration_with_params_is_run_even_if_they_are_empty() -> None:
    assert admitted(params={}).mode is Mode.RUN


def test_its_own_timeout_comes_before_the_configured_one() -> None:
    assert admission(timeout=60.0).task(registration(), OWNER).deadline_at == NOW + 60
    assert admission(timeout=60.0).task(registration(timeout=5.0), OWNER).deadline_at == NOW + 5


def test_every_member_is_kept() -> None:
    callback = CallbackTarget(url=HOOK, events=("finished", "size"), secret="second")
    task = admitted(callback=callback, labels={"a": "b"}, extra={"x_y": 1}, region_task_id=7, poll_interval=2.0, job="job-1")

    assert (task.callback, task.labels, task.extra) == (callback, {"a": "b"}, {"x_y": 1})
    assert (task.region_task_id, task.poll_interval, task.job) == (7, 2.0, "job-1")
    assert task.handle == {"seen": "job-1"}, "the backend's last look"


def test_two_tasks_of_one_registration_have_names_of_their_own() -> None:
    assert admitted().uid < admitted().uid


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"params": {"a": 1, "b": 2}}, {"params": {"b": 2, "a": 1}}, True),
        ({"params": {"a": 1}}, {"params": {"a": 2}}, False),
        ({}, {"params": {}}, False),
        ({"extra": {"x_a": 1}}, {}, False),
        ({"timeout": 43_200.0}, {}, False),
    ],
)
def test_a_fingerprint_tells_bodies_apart_whatever_the_order_of_their_members(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    assert (registration(**one).fingerprint() == registration(**other).fingerprint()) is same


def test_fingerprints_that_are_stored_are_still_those_of_their_bodies() -> None:
    """Stores keep them over upgrades: another one for the same body would refuse a repeated Idempotency-Key."""
    callback = CallbackTarget("http://h/", ("size",), "k")
    params, extra = {"b": [1, {"y": None, "x": 2.5}], "a": True}, {"x_b": 1, "x_a": {"d": 1, "c": 2}}
    rich: dict[str, Any] = {"job": "j", "region_task_id": 7, "timeout": 5.0, "poll_interval": 0.5, "labels": {"z": "1", "a": "2"}}
    drafts = [
        Registration(Draft(id="d", action="a", zone="z")),
        Registration(Draft(id='ü"\n', action="a", zone="z", params=params, callback=callback, **rich), extra),
        Registration(Draft(id="d", action="a", zone="z", callback=CallbackTarget("http://h/"))),
    ]

    assert [each.fingerprint()[:16] for each in drafts] == ["52d9194a86adb500", "0c92aa978f2b56c9", "13a5db64d35b4583"]


# ---- what is refused


def test_an_unknown_zone_is_refused_with_the_configured_ones() -> None:
    assert refused(UnknownZone, zone="z9") == (
        "cannot register 'd': unknown zone 'z9'; configured zones: z1, z2, z3",
        [("/zone", "one of: z1, z2, z3")],
    )
    with pytest.raises(UnknownZone, match="none at all"):
        admission(zones={}).task(registration(), OWNER)


def test_an_unknown_action_is_refused_with_those_of_the_zone_and_the_zones_that_know_it() -> None:
    assert refused(UnknownAction, action="clone") == (
        "cannot register 'd': zone 'z1' knows no action 'clone' (zones that know it: z2, z3); it knows: backup, fixed",
        [("/action", "one of: backup, fixed")],
    )
    detail, _ = refused(UnknownAction, action="fly")
    assert detail == "cannot register 'd': zone 'z1' knows no action 'fly'; it knows: backup, fixed"


def test_a_job_together_with_params_is_refused() -> None:
    _, members = refused(InvalidBody, params={}, job="job-1")

    assert members == [("/job", "only for work that you started yourself: leave out either job or params")]


@pytest.mark.parametrize(
    ("params", "pointer", "sentence"),
    [
        ({"target": 7}, "/params/target", "expected `str`, got `int`"),
        ({"bogus": 7}, "/params/bogus", "unknown member"),
        ({"parts": [{"name": "a"}, {}]}, "/params/parts/1/name", "is required"),
        ({"parts": [{"name": "a", "b/c": 1}]}, "/params/parts/0/b~1c", "unknown member"),
        ({"parts": {}}, "/params/parts", "expected `array`, got `object`"),
    ],
)
def test_wrong_params_are_refused_by_name_with_those_that_there_are(params: dict[str, Any], pointer: str, sentence: str) -> None:
    detail, members = refused(InvalidBody, params=params)

    assert members == [(pointer, sentence)]
    assert detail == f"cannot register 'd': {pointer}: {sentence}; params of backup are: target, parts"


def test_every_mistake_of_a_callback_is_named() -> None:
    _, members = refused(InvalidBody, callback=CallbackTarget(url="ftp://x", events=("finished", "begun"), secret="third"))

    assert members == [
        ("/callback/url", "must begin with http://"),
        ("/callback/events/1", "'begun' is not one of: finished, progress, stalled, size"),
        ("/callback/secret", "no key of that name; configured keys: default, second"),
    ]


def test_a_callback_for_no_event_is_refused() -> None:
    _, members = refused(InvalidBody, callback=CallbackTarget(url=HOOK, events=()))

    assert members == [("/callback/events", "at least one of: finished, progress, stalled, size")]


def test_a_secret_is_refused_when_no_key_is_configured() -> None:
    with pytest.raises(InvalidBody, match="none is configured"):
        admission(keys=()).task(registration(callback=CallbackTarget(url=HOOK, secret="default")), OWNER)


# ---- pointers


class Inner(Struct, forbid_unknown_fields=True):
    a: int


class Outer(Struct, forbid_unknown_fields=True):
    text: str = ""
    many: list[Inner] = []
    named: dict[Annotated[str, Meta(max_length=2)], int] = {}
    deep: dict[str, list[Inner]] = {}
    pair: tuple[int, str] = (1, "")


@pytest.mark.parametrize(
    ("data", "pointer", "sentence"),
    [
        ([], "", "expected `object`, got `array`"),
        ({"text": 1}, "/text", "expected `str`, got `int`"),
        ({"many": [{"a": 1}, {"a": "x"}]}, "/many/1/a", "expected `int`, got `str`"),
        ({"named": {"abc": 1}}, "/named", "expected `str` of length <= 2"),
        ({"named": {"a": "x"}}, "/named/*", "expected `int`, got `str`"),
        ({"deep": {"k": [{"a": "x"}]}}, "/deep/*/0/a", "expected `int`, got `str`"),
        ({"pair": [1, 2]}, "/pair/1", "expected `str`, got `int`"),
        ({"many": [{}]}, "/many/0/a", "is required"),
        ({"a/b~c": 1}, "/a~1b~0c", "unknown member"),
        ({"tick`": 1}, "/tick`", "unknown member"),
        ({"x - at `$.text": 1}, "/x - at `$.text", "unknown member"),
        ({"many": [{"a": 1, "x - at `y": 2}]}, "/many/0/x - at `y", "unknown member"),
    ],
)
def test_a_pointer_names_the_member_that_is_wrong(data: Any, pointer: str, sentence: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(data, Outer, strict=True)

    assert pointer_of(str(caught.value)) == (sentence, pointer)
    assert pointer_of(str(caught.value), "/root") == (sentence, f"/root{pointer}")
