"""The seams of the house. Rooms meet here and nowhere else; every method says what it means, on which thread it is
called, in which units, and what it may raise.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from task_daemon.core.measures import Measures
from task_daemon.core.model import Attempt, Change, Delivery, Event, Query, Report, Task

# --------------------------------------------------------------------------- time


class Clock(Protocol):
    """Time, always injected. `now` is wall time (deadlines), `monotonic` measures intervals."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, until: float | None, woken: asyncio.Event) -> None:
        """Wait until `monotonic()` reaches `until` (None: for ever) or `woken` is set, whichever is first."""
        ...


# --------------------------------------------------------------------------- backends


class Action(Protocol):
    """One verb of a backend, bound to one zone. All methods run on a worker thread and must bound their own time."""

    name: str
    params: type[Struct]
    """What `params` of a run registration must be; decoded strictly, its JSON Schema is shown by `GET /v1/actions`."""
    cancellable: bool
    summary: str
    """One line for people."""

    def prepare(self, task: Task) -> dict[str, Any] | None:
        """What must be on disk before the work is started, so that it will be found again (the task's handle)."""
        ...

    def start(self, task: Task) -> Report | None:
        """Make sure the work runs under the task's name. Called again after a crash: must adopt, never start twice.

        A report says at once what is known; None leaves that to the next poll.
        Raises StartRefused (the end of the task), WorkGone (it ran once and is gone: the task is lost),
        BackendUnreachable (tried again later).
        """
        ...

    def cancel(self, task: Task) -> None:
        """Ask the backend to stop the work. Called with every poll until the work has ended; harmless when repeated."""
        ...

    def forget(self, task: Task) -> None:
        """Clean up after the end is on disk: dismiss the job, remove half-made results unless the task succeeded; if the
        task ended without its work ending (time-out), stop the work first. Repeated until it returns without an error."""
        ...


class Backend(Protocol):
    """The client of one zone. Methods run on a worker thread, never two at a time, except `admit` (event loop)."""

    actions: Mapping[str, Action]

    def admit(self, task: Task) -> dict[str, Any] | None:
        """The last look at a registration before it is stored, on the event loop: must not block.

        Answers the first handle of a *tracked* task (what identifies the work), or None. `params` of a run task were
        checked against the action's struct before. Raises InvalidBody naming the member.
        """
        ...

    def poll(self, tasks: Sequence[Task]) -> Mapping[str, Report]:
        """Reports by uid for all given tasks, in as few calls as the outside allows.

        A task missing in the answer, or with Verdict.UNKNOWN, is left as it is. Raises BackendUnreachable when the zone
        gives no good answer within the zone's time-out; anything else it raises is taken as the fault of single tasks.
        """
        ...

    def events(self, wake: Callable[[], None]) -> None:
        """Take `wake`, to be called from any thread whenever the outside announces a change: the zone is polled early."""
        ...

    def close(self) -> None:
        """Let go of connections and threads. Never touches the work."""
        ...


class Zone(Struct, frozen=True):
    """A named place where work happens: one Backend instance and its settings."""

    name: str
    kind: str  # the backend's family: "storage", "process", "simulated"
    backend: Backend
    poll_interval: float = 10.0
    poll_timeout: float = 5.0
    stall_after: float = 600.0
    labels: Mapping[str, str] = {}
    one_by_one: bool = False
    """The backend has an attribute of this name that is true: it asks the outside once for each task, so a poll of all of
    them at once would take long. Its tasks are spread over the interval and handed to `poll` a few at a time."""


class ZoneContext(Struct, frozen=True):
    """What a zone's backend is made with, besides its own settings."""

    name: str
    directory: str
    """A directory that belongs to this zone alone (created with mode 0700); survives restarts."""
    poll_timeout: float
    clock: Clock


class Family(Struct, frozen=True):
    """A kind of backend, as the configuration names it. `settings` is what its `[zones.x]` table may hold besides the
    members every zone has; `make` must not connect to anything."""

    name: str
    settings: type[Struct]
    make: Callable[[Any, ZoneContext], Backend]


# --------------------------------------------------------------------------- deliveries


class Delivered(Struct, frozen=True):
    attempt: Attempt


class Later(Struct, frozen=True):
    """Not accepted; try again after `seconds`. `target_down`: the receiver did not answer or failed (5xx): counts
    against the target, not only against this delivery."""

    attempt: Attempt
    seconds: float
    target_down: bool = True


class Refused(Struct, frozen=True):
    """Will never be accepted: dead until somebody replays it."""

    attempt: Attempt


Outcome = Delivered | Later | Refused


class Answer(Struct, frozen=True):
    """What a receiver answered: status, headers that matter, the first 4 KiB of the body as text."""

    status: int
    seconds: float
    body: str = ""
    retry_after: float | None = None


class Sender(Protocol):
    """Takes one delivery out of the house. Event loop; never blocks it."""

    async def send(self, delivery: Delivery, attempt: int, now: float) -> Answer:
        """Send once, within the configured time. `attempt` counts from 1, `now` is wall time for the timestamp.

        Raises Unsendable for what can never be sent (no such key, target not allowed) and OSError or TimeoutError when
        there was no answer.
        """
        ...

    async def close(self) -> None: ...


class Unsendable(Exception):
    """This delivery cannot be sent as it is; the message says why and what to change."""


class Call(Struct, frozen=True):
    """One call of the region that belongs to an event of a task: method, path below the service URL, body (JSON)."""

    method: str
    path: str
    body: Any


class RegionCalls(Protocol):
    """The region's route table."""

    def __call__(self, task: Task, outcome: str, error: str | None) -> Sequence[Call]:
        """Calls to make, in their order, for `outcome` "finished", "failed" or "size"."""
        ...


# --------------------------------------------------------------------------- engine


class Again(Struct, frozen=True):
    """Poll this zone again: at its next regular time (None), or not before so many seconds (a zone in trouble), or at
    once (0.0: there is more to do)."""

    seconds: float | None = None


class Idle(Struct, frozen=True):
    """Nothing to poll until something is registered or the zone is poked."""


class Beat(Protocol):
    """One run of the recurring poll of one zone, as handed to `on_poll`."""

    @property
    def zone(self) -> str: ...

    @property
    def token(self) -> int:
        """Raised when a poll starts; results written under an older token are refused."""
        ...

    def touch(self) -> None:
        """Sign of life: the poll is not stuck. Called before each call into the backend."""
        ...

    def waited(self, seconds: float) -> None:
        """A call into the backend took so long: time that this machine was free for others."""
        ...

    def give_way(self) -> None:
        """Called between two pieces of a long piece of work: whoever is in a hurry goes first, which may take a moment."""
        ...


class NewTask(Struct, frozen=True):
    """A task to add, with the idempotency key of its registration if there is one. `fingerprint` identifies the body."""

    task: Task
    key: str | None = None
    fingerprint: str = ""


Tell = Callable[[], None]

Meanwhile = Callable[[], Tell | None]
"""See `Engine.add`."""


class Added(Struct, frozen=True):
    """`replayed`: the same registration was there already, and `task` is that one as it is now."""

    task: Task
    replayed: bool = False


class Backlog(Struct, frozen=True):
    """Callbacks that are pending, how many are dead, and since when (wall time) the oldest pending one is: of the 10,000 whose
    tasks were registered first."""

    pending: int = 0
    dead: int = 0
    oldest: float | None = None


class Check(Struct, frozen=True):
    """What a look through the whole store found: sentences, none if it is sound. `complete`: it was looked at to its end."""

    findings: Sequence[str] = ()
    complete: bool = True


class Times(Struct, frozen=True):
    """When a task was polled last and will be polled next (wall time)."""

    last_polled_at: float | None
    next_poll_at: float | None


class Page(Struct, frozen=True):
    """`more`: there are further tasks after the last one. `cursor`: the last event contained in this answer."""

    tasks: Sequence[Task]
    more: bool
    cursor: int


OnPoll = Callable[[Beat], Again | Idle]
OnDeliver = Callable[[Delivery], Awaitable[Outcome]]
OnExpire = Callable[[Sequence[Task]], None]
OnChange = Callable[[Sequence[Task], Sequence[Event]], None]
OnFatal = Callable[[BaseException], None]


class Handlers(Struct, frozen=True):
    """What an engine calls.

    `poll`: worker thread. `deliver`: event loop. `expire`: worker thread, with tasks whose deadline has passed.
    `change`: event loop, after a commit, with the new versions and their events; for changes that stay in memory only
    tasks in `Engine.watched` are told. `fatal`: the store is in an unknown state; stop the daemon.
    """

    poll: OnPoll
    deliver: OnDeliver
    expire: OnExpire
    change: OnChange
    fatal: OnFatal


class Watched(set[str]):
    """uids of tasks whose changes in memory are to be told; with `everything`, those of all tasks."""

    everything = False


class Engine(Protocol):
    """Remembers tasks, events, deliveries and beats; times and hands out work. Knows no backend and no HTTP.

    Methods that are `async` belong to the event loop; the others say which thread.
    """

    watched: Watched
    """Tasks whose in-memory changes are to be told through `Handlers.change` (somebody waits for progress)."""
    measures: Measures
    """What was counted since the start; whoever works with the engine counts there, too."""

    async def open(self, intervals: Mapping[str, float], handlers: Handlers, spread: Collection[str] = ()) -> None:
        """Take what is stored and begin to hand out work. `intervals`: seconds by zone. Tasks of other zones are kept,
        listed and expire, but are not polled. `spread`: zones whose tasks come up one after the other over the interval,
        not all at one point of it."""
        ...

    async def close(self) -> None:
        """Stop handing out work, checkpoint progress, put everything on disk. Does not wait for stuck workers."""
        ...

    async def add(self, new: Sequence[NewTask], meanwhile: Meanwhile | None = None) -> list[Added]:
        """Store tasks, all or none, each with its `task.registered` event; returns after the commit (I1). `meanwhile`: called
        once, on the event loop, while they are being stored: for what can be made ready before it is known how that ends. What
        it gives back may be called, too, once, when all of them are new and on disk and something is left to do before `add`
        returns that whoever waits for the answer need not wait for.

        Raises Conflict (with `members`, and `extra["index"]` and `extra["uid"]`), IdempotencyKeyReused, StoreFull,
        OutcomeUnknown.
        """
        ...

    async def known(self, new: Sequence[NewTask]) -> int:
        """How many of these `add` would answer with a task that is there already, and store nothing for.

        Raises Conflict, IdempotencyKeyReused as `add` does.
        """
        ...

    def get(self, uid: str) -> Task | None:
        """A live task, or one with something left to clean up, from memory. Any thread."""
        ...

    async def load(self, uid: str) -> Task | None:
        """Any stored task, as new as `get`'s."""
        ...

    async def find(self, query: Query) -> Page: ...

    def tally(self) -> Mapping[tuple[str, str, str], int]:
        """Live tasks by (zone, action, state). Any thread; O(groups), not O(tasks)."""
        ...

    def live(self) -> int:
        """Number of live tasks. Any thread; O(1)."""
        ...

    def live_of(self, owner_uid: int) -> int:
        """Number of live tasks of one owner. Event loop."""
        ...

    def times(self, task: Task) -> Times: ...

    def first_poll(self, task: Task, among: int) -> float | None:
        """Wall time at which a task will be polled for the first time that is registered now, as one of `among` in its zone;
        None: not known."""
        ...

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        """Apply changes; False where the task was not as `before` any more. Returns after the commit."""
        ...

    def batch(self, beat: Beat) -> Sequence[Task]:
        """The tasks of the beat's zone to look at now: those whose interval is due, new ones, poked ones, and those left
        to clean up. Worker thread."""
        ...

    def report(self, beat: Beat | None, changes: Sequence[Change]) -> list[bool]:
        """Like `change`, blocking, for worker threads; everything durable in it is one transaction. All False when the
        beat's token is not the newest any more (None: not fenced)."""
        ...

    def poke(self, zone: str, uid: str | None = None) -> None:
        """Poll the zone soon (all its tasks, or at least this one). Any thread; coalesced."""
        ...

    async def pause(self, zone: str, paused: bool) -> None:
        """Stop or resume polling a zone; remembered across restarts."""
        ...

    def paused(self) -> frozenset[str]: ...

    async def events(self, after: int, limit: int, uid: str | None = None) -> list[Event]:
        """Events with a sequence above `after` (0: from the oldest that is retained), oldest first.

        Raises CursorExpired (`extra["oldest"]`) when some after that cursor are not retained any more."""
        ...

    async def deliveries(
        self,
        uid: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 100,
        owner_uid: int | None = None,
    ) -> list[Delivery]:
        """Deliveries of one task in their order; without `uid`, newest first below the id `before`."""
        ...

    async def delivery(self, delivery_id: str) -> Delivery | None: ...

    async def backlog(self) -> Backlog:
        """The callbacks that are still to be made."""
        ...

    async def callback_counts(self, uids: Sequence[str]) -> dict[str, dict[str, int]]:
        """By uid: {"pending", "delivered", "dead"}; acknowledged ones count as delivered."""
        ...

    async def redeliver(self, delivery_id: str) -> Delivery:
        """Send a delivery again from the start of the schedule, with those held back behind it. Raises NotFound."""
        ...

    async def acknowledge(self, delivery_id: str) -> Delivery:
        """The owner has read it: never sent again. Raises NotFound."""
        ...

    def wake_owner(self, owner_uid: int) -> None:
        """The owner is alive: deliveries of its tasks that wait for a retry go out now. Event loop; at most once a
        second for each owner."""
        ...

    async def purge(self, finished_before: float, keep: int) -> int:
        """Remove finished tasks that ended before this wall time or are beyond the newest `keep`, with their history;
        never one with a pending delivery or something left to clean up. Returns how many (at most 1,000 a call)."""
        ...

    async def checkpoint(self) -> None:
        """Put the progress that is only in memory on disk."""
        ...

    def status(self) -> Mapping[str, Any]:
        """Facts for `/v1/info` and `/v1/zones`: live tasks, store size, last commit latency, busy and stuck workers,
        outbox counts, what a salvage lost. Any thread."""
        ...

    async def check(self) -> Check:
        """Look whether everything stored can be read, for some seconds at most, beside the other work."""
        ...
