"""Any order of whatever can happen, against a model in dictionaries: nothing acknowledged is lost, no end untold or told of
twice, nothing started again.

The normal run takes the same examples each time; with TASK_DAEMON_HYPOTHESIS=nightly it takes many new ones
(`--hypothesis-seed=N` repeats them).
"""

import logging
import os
from collections import Counter
from itertools import cycle
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from task_daemon.core.errors import (
    AlreadyFinished,
    Conflict,
    Gone,
    IdempotencyKeyReused,
    NotCancellable,
    NotDone,
    NotLost,
    Refusal,
)
from task_daemon.core.model import CallbackTarget, Draft, Event, Owner, State
from task_daemon.engine.deadlines import EXPIRE_AGAIN
from task_daemon.tracking.admit import Registration
from tests.properties.model import FINAL, Known
from tests.properties.outside import ANSWERS, FORGETS, INTERVAL, SAYS, STARTS, ZONES, Saying, Seen, World

NIGHTLY = os.environ.get("TASK_DAEMON_HYPOTHESIS") == "nightly"
PROFILE = settings(
    max_examples=3000 if NIGHTLY else 60,
    stateful_step_count=100 if NIGHTLY else 60,
    derandomize=not NIGHTLY,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
OWNERS = (Owner(1000, 1000, 1), Owner(1001, 1001, 2))
TARGETS = ("http://r0", "http://r1")
DAY = 86_400.0
LIVE = ("queued", "running", "cancelling")
Lives = list[tuple[Saying, str, str]]

drafts = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["d0", "d1", "d2"]),
        "zone": st.sampled_from(ZONES),
        "action": st.sampled_from(["clone", "clone", "fixed"]),
        "params": st.sampled_from([None, {}, {}, {"n": 1}]),
        "timeout": st.sampled_from([None, None, None, 40.0, 3600.0]),
        "target": st.sampled_from([None, *TARGETS]),
        "events": st.sampled_from([("finished",), ("finished", "progress"), ("finished", "stalled", "size"), ("size",)]),
    }
)
tasks = st.integers(0, 20)
sayings = st.builds(
    Saying, st.sampled_from(SAYS), st.sampled_from([0.0, 10.0, 30.0, 50.0, 90.0]), st.sampled_from([None, None, 4096])
)
lives = st.lists(st.tuples(sayings, st.sampled_from(STARTS), st.sampled_from(FORGETS)), min_size=3, max_size=6)
moods = st.fixed_dictionaries(dict.fromkeys([*TARGETS, "region"], st.sampled_from(ANSWERS)))


class Machine(RuleBasedStateMachine):
    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.durable)
        self.known: dict[str, Known] = {}
        self.keys: dict[tuple[int, str], tuple[str, str]] = {}  # owner, key: fingerprint, uid
        self.types: dict[str, list[str]] = {}
        self.cursor = 0
        self.paused: set[str] = set()

    # ---- what people do

    @initialize(some=st.lists(drafts, min_size=1, max_size=5), some_lives=lives, some_moods=moods)
    def begin(self, some: list[dict[str, Any]], some_lives: Lives, some_moods: dict[str, str]) -> None:
        self.world.receivers.moods = some_moods
        for draft in some:
            self._register([draft], OWNERS[0], None)
        self.all_go_on(some_lives, INTERVAL)

    @rule(some=st.lists(drafts, min_size=1, max_size=3), owner=st.sampled_from(OWNERS), key=st.sampled_from([None, "k0", "k1"]))
    def register(self, some: list[dict[str, Any]], owner: Owner, key: str | None) -> None:
        self._register(some, owner, key)
        self._pass(INTERVAL)

    @rule(which=tasks, stop_tracking=st.booleans())
    def cancel(self, which: int, stop_tracking: bool) -> None:
        known = self._one(which)
        self._refused(self._why_not_cancelled(known, stop_tracking), self.world.manager.cancel(known.uid, stop_tracking))
        if self._why_not_cancelled(known, stop_tracking) is None and known.state not in {"cancelled", "cancelling"}:
            known.happens("cancelling" if known.run and (known.state != "queued" or known.launched) else "cancelled")
        self._settle()

    @rule(which=tasks, good=st.booleans())
    def resolve(self, which: int, good: bool) -> None:
        known = self._one(which, "lost")
        state = State.SUCCEEDED if good else State.FAILED
        why = Gone if known.deleted else NotLost if known.state != "lost" else None
        self._refused(why, self.world.manager.resolve(known.uid, state, "seen by a person"))
        if why is None:
            known.happens("resolved", state.value)
        self._settle()

    @rule(which=tasks)
    def delete(self, which: int) -> None:
        known = self._one(which, *FINAL)
        self._refused(Gone if known.deleted else None if known.done else NotDone, self.world.manager.delete(known.uid))
        known.deleted = known.deleted or known.done
        self._settle()

    @rule(which=tasks)
    def poll_now(self, which: int) -> None:
        known = self._one(which)
        why = Gone if known.deleted else AlreadyFinished if known.done else None
        self._refused(why, self.world.manager.poll_now(known.uid))
        self._settle()

    @rule(which=tasks, acknowledged=st.booleans())
    def replay_or_acknowledge(self, which: int, acknowledged: bool) -> None:
        posts = [(known, post) for known in self.known.values() for post in known.posts.values()]
        if not posts:
            return
        known, post = posts[which % len(posts)]
        if acknowledged:
            self.world.run(self.world.manager.acknowledge(post.id))
            post.step(state="acked")
        else:
            self.world.run(self.world.manager.replay(post.id))
            known.replays(post)
        self._settle()

    @rule(zone=st.sampled_from(ZONES), paused=st.booleans())
    def pause(self, zone: str, paused: bool) -> None:
        self.world.run(self.world.manager.pause(zone, paused))
        (self.paused.add if paused else self.paused.discard)(zone)
        self._settle()

    # ---- what the outside does

    @rule(some=lives, seconds=st.sampled_from([0.06, INTERVAL, INTERVAL, INTERVAL, 300.0]))
    def all_go_on(self, some: Lives, seconds: float) -> None:
        """Each task gets its own turn of fate, which stays until the next."""
        for known, (saying, start, forget) in zip(self.known.values(), cycle(some), strict=False):
            outside = self.world.outsides[known.zone]
            outside.says[known.uid], outside.starts[known.uid], outside.forgets[known.uid] = saying, start, forget
        self._pass(seconds)

    @rule(which=tasks, saying=sayings)
    def one_goes_on(self, which: int, saying: Saying) -> None:
        known = self._one(which, *LIVE)
        self.world.outsides[known.zone].says[known.uid] = saying
        self._pass(INTERVAL)

    @rule(which=tasks)
    def one_vanishes(self, which: int) -> None:
        known = self._one(which, "running", "cancelling")
        self.world.outsides[known.zone].says[known.uid] = Saying("vanished")
        for _ in range(3):
            self._pass(INTERVAL)

    @rule(zone=st.sampled_from(ZONES), silent=st.booleans())
    def is_silent(self, zone: str, silent: bool) -> None:
        self.world.outsides[zone].silent = silent

    @rule(some=moods)
    def receivers_answer(self, some: dict[str, str]) -> None:
        self.world.receivers.moods = some

    # ---- time, stops and crashes

    @rule(seconds=st.sampled_from([0.06, 1.0, 5.0, INTERVAL, 31.0, 61.0, 400.0, 4000.0, 50_000.0]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(seconds=st.sampled_from([-DAY, -3600.0, -2.0, 2.0, 3600.0, DAY]))
    def wall_clock_is_set(self, seconds: float) -> None:
        self.world.clock.jump(seconds)
        for post in self._posts():
            post.due -= max(0.0, seconds)
        self._settle()

    @rule()
    def checkpoint(self) -> None:
        self.world.run(self.world.engine.checkpoint())

    @rule()
    def restart(self) -> None:
        self.world.restart()
        self._settle()

    @precondition(lambda self: self.durable)
    @rule()
    def crash(self) -> None:
        self._remember()
        self.world.crash()
        self.world.settle()
        self._learn(crashed=True)

    @precondition(lambda self: self.durable)
    @rule(zone=st.sampled_from(ZONES), where=st.sampled_from(["prepare", "start", "poll", "forget", "cancel"]))
    def crash_at_the_backend(self, zone: str, where: str) -> None:
        self.world.outsides[zone].crash_at = where
        self._pass(INTERVAL)

    @precondition(lambda self: self.durable)
    @rule(receiver=st.sampled_from([*TARGETS, "region"]))
    def crash_at_a_receiver(self, receiver: str) -> None:
        self.world.receivers.crash_at = receiver

    # ---- what always holds

    @invariant()
    def memory_and_disk_agree(self) -> None:
        engine = self.world.engine
        for uid, known in self.known.items():
            live, stored = engine.get(uid), self.world.stored(uid)
            assert (live is not None) == (not known.done or not known.tidy)
            if stored is None or live is None:
                continue
            assert (stored.task_seq, stored.state, stored.deleted) == (live.task_seq, live.state, live.deleted)
            assert stored == live or uid in engine._live.dirty

    @invariant()
    def counts_are_right(self) -> None:
        live = Counter((known.zone, known.triple[1], known.state) for known in self.known.values() if not known.done)
        assert self.world.engine.tally() == live

    @invariant()
    def nothing_went_wrong_unseen(self) -> None:
        assert self.world.fatal == []
        assert [text for outside in self.world.outsides.values() for text in outside.wrong] == []
        assert self.world.engine.paused() == self.paused

    def teardown(self) -> None:
        """When the outside is well again, everything ends and everybody is told, soon."""
        try:
            self._heal()
            for _ in range(14):
                self._pass(61.0)
            assert [known for known in self.known.values() if not known.done or not known.tidy] == []
            assert [post for post in self._posts() if post.state == "pending"] == []
        finally:
            self.world.end()

    # ---- inside

    def _heal(self) -> None:
        for zone in sorted(self.paused):
            self.world.run(self.world.manager.pause(zone, False))
        self.paused = set()
        self.world.receivers.moods, self.world.receivers.crash_at = {}, None
        for outside in self.world.outsides.values():
            outside.silent, outside.crash_at, outside.starts, outside.forgets = False, None, {}, {}
            outside.says = dict.fromkeys(self.known, Saying("succeeded", 100.0))

    def _register(self, some: list[dict[str, Any]], owner: Owner, key: str | None) -> None:
        registrations = [_registration(draft) for draft in some]
        expected, refusal = self._expected(registrations, owner, key)
        added = self._refused(refusal, self.world.manager.register(registrations, owner, key))
        if refusal is None:
            for index, (registration, answer) in enumerate(zip(registrations, added, strict=True)):
                uid = expected[index]
                assert answer.replayed == (uid is not None)
                if uid is None or uid.isdigit():
                    uid = added[int(uid)].task.uid if uid else answer.task.uid
                assert answer.task.uid == uid
                self.known.setdefault(uid, _known(registration, answer.task.uid, answer.task.deadline_at, owner))
                if key is not None:
                    self.keys.setdefault((owner.uid, f"{key}#{index}"), (registration.fingerprint(), uid))
        self._settle()

    def _expected(
        self, registrations: list[Registration], owner: Owner, key: str | None
    ) -> tuple[list[str | None], type[Refusal] | None]:
        """By registration: None for a new task, the uid of one that is there, or the index of an earlier one of the batch;
        and why all are refused, if they are."""
        expected: list[str | None] = []
        live = {known.triple: (known.uid, known.members) for known in self.known.values() if not known.done}
        for index, registration in enumerate(registrations):
            stored = self.keys.get((owner.uid, f"{key}#{index}"))
            if stored is not None:
                if stored[0] != registration.fingerprint():
                    return [], IdempotencyKeyReused
                expected.append(stored[1])
                continue
            mine = _known(registration, str(index), 0.0, owner)
            uid, members = live.setdefault(mine.triple, (str(index), mine.members))
            if members != mine.members:
                return [], Conflict
            expected.append(None if uid == str(index) else uid)
        return expected, None

    def _why_not_cancelled(self, known: Known, stop_tracking: bool) -> type[Refusal] | None:
        if known.deleted:
            return Gone
        if known.state in {"cancelled", "cancelling"}:
            return NotCancellable if known.state == "cancelling" and not known.cancellable else None
        if known.done:
            return AlreadyFinished
        if not known.run:
            return None if stop_tracking else NotCancellable
        return NotCancellable if not known.cancellable and (known.launched or known.state != "queued") else None

    def _refused(self, why: type[Refusal] | None, work: Any) -> Any:
        if why is None:
            return self.world.run(work)
        with pytest.raises(why):
            self.world.run(work)
        return None

    def _one(self, which: int, *states: str) -> Known:
        """One of the tasks, in one of these states if there is one."""
        fitting = [known for known in self.known.values() if known.state in states] or list(self.known.values())
        return fitting[which % len(fitting)]

    def _posts(self) -> list[Any]:
        return [post for known in self.known.values() for post in known.posts.values()]

    def _pass(self, seconds: float) -> None:
        self.world.clock.advance(seconds)
        self._settle()

    def _remember(self) -> None:
        for post in self._posts():
            post.been = []
            post.remember()

    def _settle(self) -> None:
        before = {zone: outside.polls for zone, outside in self.world.outsides.items()}
        crashes = self.world.settle()
        self._learn(crashes > 0)
        for zone, outside in self.world.outsides.items():
            surprises = [uid for uid, saying in outside.says.items() if saying.kind == "surprise"]
            most = 0 if zone in self.paused else (3 + 2 * len(self.known) * bool(surprises)) * (1 + crashes)
            assert outside.polls - before[zone] <= most, "a storm of polls"

    def _learn(self, crashed: bool) -> None:
        """Take what happened into the model and compare it with what the daemon shows."""
        self._read_events(crashed)
        seen, self.world.log[:] = list(self.world.log), []
        for uid, known in self.known.items():
            mine = [one for one in seen if one.uid == uid]
            task = self.world.run(self.world.engine.load(uid))
            assert task is not None, f"task {uid} was acknowledged and is lost"
            if crashed or (not known.done and self.world.clock.now() >= known.deadline):
                self._believe(known, task, mine, crashed)
            else:
                for one in mine:
                    known.hears(one)
            for one in mine:
                if one.what == "send":
                    known.is_sent(one, crashed)
            known.check(self.types[uid], task, self.world.run(self.world.engine.deliveries(uid=uid)), crashed)
        self._remember()

    def _believe(self, known: Known, task: Any, mine: list[Seen], crashed: bool) -> None:
        shown, events, now = known.percent, len(known.types), self.world.clock.now()
        known.believes(self.types[known.uid], task, sum(1 for one in mine if one.what == "poll"))
        assert crashed or shown is None or (known.percent or 0.0) >= shown, "progress fell"
        if not known.done and now >= known.deadline:
            if len(known.types) > events or crashed:
                known.excused = now + EXPIRE_AGAIN
            assert now < known.excused, f"{known.uid} lives on beyond its deadline"

    def _read_events(self, crashed: bool) -> None:
        """Gap-free and in order, across crashes too."""
        if crashed:
            self.types, self.cursor = {}, 0
        found: list[Event] = self.world.run(self.world.engine.events(self.cursor, 10_000))
        for event in found:
            self.cursor += 1
            types = self.types.setdefault(event.uid, [])
            types.append(event.type.removeprefix("task."))
            assert (event.seq, event.task_seq) == (self.cursor, len(types))
        assert set(self.types) == set(self.known), "tasks that nobody was answered"


class MemoryMachine(Machine):
    durable = False


def _registration(draft: dict[str, Any]) -> Registration:
    target = draft["target"]
    callback = None if target is None else CallbackTarget(url=f"{target}/told", events=draft["events"])
    rest = {name: value for name, value in draft.items() if name not in {"target", "events"}}
    return Registration(Draft(callback=callback, **rest))


def _known(registration: Registration, uid: str, deadline: float, owner: Owner) -> Known:
    draft = registration.draft
    timeout = draft.timeout or 43_200.0
    return Known(
        uid=uid,
        zone=draft.zone,
        triple=(draft.zone, draft.action, draft.id),
        members=(repr(draft.params), draft.callback, timeout, owner.uid),
        run=draft.params is not None,
        cancellable=draft.action != "fixed",
        deadline=deadline,
        target=None if draft.callback is None else draft.callback.url.rpartition("/")[0],
        asked=() if draft.callback is None else draft.callback.events,
    )


@pytest.mark.timeout(36_000 if NIGHTLY else 120)
@pytest.mark.parametrize("machine", [Machine, MemoryMachine], ids=["local", "memory"])
def test_the_daemon_does_what_its_model_says_whatever_happens(machine: type[Machine], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="task_daemon")  # it has much to say about such an outside
    run_state_machine_as_test(machine, settings=PROFILE)
