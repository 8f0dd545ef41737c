"""What the daemon promises, in plain dictionaries: the rules of the contract written down a second time, without engine,
disk, clock or threads."""

from dataclasses import dataclass, field

from task_daemon.core.model import Delivery, Task
from tests.properties.outside import RETRY_AFTER, SCHEDULE, STALL_AFTER, Saying, Seen

FINAL = {"succeeded", "failed", "cancelled", "lost"}
PROGRESS_EVERY = 10.0
ASKS = dict.fromkeys((*FINAL, "resolved"), "finished") | {name: name for name in ("progress", "stalled", "size")}
NOT_NOW = RETRY_AFTER  # seconds


@dataclass
class Post:
    """One delivery."""

    id: str
    target: str
    group: tuple[int, int]
    state: str = "pending"
    attempts: int = 0
    rejects: int = 0  # 404 and the like in a row
    due: float = 0.0  # monotonic; no earlier attempt
    been: list[tuple[str, int, int, float]] = field(default_factory=list)  # in this step

    def step(self, **changes: object) -> None:
        for name, value in changes.items():
            setattr(self, name, value)
        self.remember()

    def remember(self) -> None:
        self.been.append((self.state, self.attempts, self.rejects, self.due))


@dataclass
class Known:
    """One task that was acknowledged to its registrant."""

    uid: str
    zone: str
    triple: tuple[str, str, str]
    members: tuple[object, ...]
    run: bool
    cancellable: bool
    deadline: float
    target: str | None  # None: the region is told
    asked: tuple[str, ...]
    state: str = "queued"
    types: list[str] = field(default_factory=lambda: ["registered"])
    posts: dict[str, Post] = field(default_factory=dict)
    launched: bool = False
    tidy: bool = True
    deleted: bool = False
    percent: float | None = None
    misses: int = 0
    moved_at: float | None = None
    told_at: float | None = None
    stalled: bool = False
    size_told: bool = False
    excused: float = 0.0  # wall time until which it may be live beyond its deadline: its expiry lost against a poll

    @property
    def done(self) -> bool:
        return self.state in FINAL

    # ---- what happens to it

    def happens(self, kind: str, resolved: str | None = None) -> None:
        """One durable event, checked against the table of moves, and the deliveries it calls for."""
        if kind in FINAL:
            assert not self.done, f"{self.uid} ended twice: {self.types}, then {kind}"
            self.state, self.stalled = kind, False
        elif kind == "resolved":
            assert self.state == "lost", f"{self.uid} was resolved from {self.state}"
            self.state = resolved or "failed"
        elif kind == "tidied":
            assert self.done
            assert not self.tidy
            self.tidy = True
        else:
            assert not self.done, f"{kind} after the end of {self.uid}: {self.types}"
            if kind in {"launching", "running"}:
                assert self.state == "queued", f"{kind} of {self.uid} which is {self.state}"
            if kind == "launching":
                assert not self.launched
                self.launched, self.tidy = True, False
            elif kind in {"running", "cancelling"}:
                self.state = kind
        if kind in {*FINAL, "running", "cancelling"}:
            self.misses = 0
        self.types.append(kind)
        for part in range(self._parts(kind)):
            seq = len(self.types)
            post = Post(f"msg_{self.uid}_{seq}_{part}", self.target or "region", (seq, part))
            post.remember()
            self.posts[post.id] = post

    def _parts(self, kind: str) -> int:
        if self.target is not None:
            return int(ASKS.get(kind) in self.asked)
        if kind == "size":
            return 1
        return 2 if kind in FINAL or (kind == "resolved" and self.state == "succeeded") else 0

    def hears(self, seen: Seen) -> None:
        """What the daemon did for this task, and what the outside answered."""
        match seen.what, seen.kind:
            case "prepare", _:
                self.happens("launching")
            case "start", kind:
                assert self.state == "queued", f"{self.uid} was started while it was {self.state}"
                if kind == "seen running":
                    self._goes_on(Saying(percent=0.0), seen.wall)
                elif kind in {"refused", "gone", "over at once"}:
                    self._ends({"refused": "failed", "gone": "lost", "over at once": "succeeded"}[kind])
            case "forget", kind:
                assert self.done
                if kind == "done":
                    self.happens("tidied")
            case "poll", kind if not self.done:
                self._is_said(kind, seen.saying, seen.wall)

    def _is_said(self, kind: str, saying: Saying, wall: float) -> None:
        match kind:
            case "going on":
                self._goes_on(saying, wall)
            case "succeeded":
                self._ends("succeeded")
            case "failed" | "was cancelled":
                self.percent = max(saying.percent, self.percent or 0.0)
                self._ends("cancelled" if kind == "was cancelled" and self.state == "cancelling" else "failed")
            case "vanished" | "vanished for certain":
                self._vanishes(kind != "vanished")

    def _ends(self, state: str) -> None:
        if state == "succeeded":
            self.percent = 100.0
        self.happens(state)

    def _goes_on(self, saying: Saying, wall: float) -> None:
        percent = max(saying.percent, self.percent or 0.0)
        moved = self.percent is None or percent > self.percent
        if self.state == "queued":
            self.percent, self.moved_at = percent, wall
            self.happens("running")
        else:
            self.misses = 0
            since = self.moved_at if self.moved_at is not None else wall
            if moved:
                self.percent, self.moved_at = percent, wall
                if self.stalled:
                    self.stalled = False
                    self.happens("recovered")
                elif "progress" in self.asked and not (self.told_at and 0 <= wall - self.told_at < PROGRESS_EVERY):
                    self.told_at = wall
                    self.happens("progress")
            elif since > wall:
                self.moved_at = wall
            elif not self.stalled and wall - since >= STALL_AFTER:
                self.stalled = True
                self.happens("stalled")
        if saying.size and not self.size_told:
            self.size_told = True
            self.happens("size")

    def _vanishes(self, certain: bool) -> None:
        if self.state == "queued" and not self.launched and not certain:
            return
        if not certain and self.misses < 2:
            self.misses += 1
            return
        self.happens("cancelled" if self.state == "cancelling" else "lost")

    # ---- its deliveries

    def is_sent(self, seen: Seen, crashed: bool) -> None:
        assert seen.delivery is not None
        post = self.posts[seen.delivery.id]
        if (post.state, post.attempts) != ("pending", seen.attempt - 1):
            assert crashed, f"{post.id}: attempt {seen.attempt} after {post}"
            earlier = [been for been in post.been if been[:2] == ("pending", seen.attempt - 1)]
            assert earlier, f"{post.id}: attempt {seen.attempt} after {post}"
            post.state, post.attempts, post.rejects, post.due = earlier[0]
        if not crashed:
            waiting = [other.id for other in self.posts.values() if other.group < post.group and other.state == "pending"]
            assert not waiting, f"{post.id} went out before {waiting}"
            assert seen.monotonic >= post.due - 1e-6, f"{post.id} went out {post.due - seen.monotonic} s early"
        self._is_answered(post, seen.kind, seen.monotonic)

    def _is_answered(self, post: Post, kind: str, now: float) -> None:
        if kind == "crash":
            return
        attempts = post.attempts + 1
        if kind == "accepts":
            post.step(state="delivered", attempts=attempts)
            return
        rejects = post.rejects + 1 if kind == "missing" else 0
        wait: float | None = 60.0 if kind == "surprise" else SCHEDULE[attempts] if attempts < len(SCHEDULE) else None
        if kind == "busy" and wait is not None:
            wait = max(wait, NOT_NOW)
        if wait is None or kind in {"gone", "unsendable"} or rejects >= 3:
            post.step(state="dead", attempts=attempts)
            for other in self.posts.values():
                if other.group[0] == post.group[0] and other.group > post.group and other.state == "pending":
                    other.step(state="dead")
        else:
            post.step(attempts=attempts, rejects=rejects, due=now + wait)

    def replays(self, post: Post) -> None:
        again = [other for other in self.posts.values() if other.group[0] == post.group[0] and other.group > post.group]
        for one in [post, *(other for other in again if other.state == "dead")]:
            one.step(state="pending", attempts=0, rejects=0, due=0.0)

    # ---- is it so?

    def believes(self, types: list[str], task: Task, looks: int) -> None:
        """Where more than one outcome is right (a crash, a deadline that meets a poll), the disk says which; it must go on
        from what was acknowledged, by legal moves. `looks`: how often the task was polled in this step."""
        assert types[: len(self.types)] == self.types, f"{self.uid} lost history: {self.types} became {types}"
        for kind in types[len(self.types) :]:
            self.happens(kind, task.state.value)
        self.percent = task.progress.percent if task.progress is not None else None
        assert task.done or task.misses <= self.misses + looks, f"{self.uid} has misses that nobody saw in a row"
        self.misses, self.moved_at, self.told_at = task.misses, task.last_progress_at, task.progress_told_at
        self.stalled, self.size_told = task.stalled, task.size_told

    def check(self, types: list[str], task: Task, rows: list[Delivery], crashed: bool) -> None:
        assert types == self.types, f"{self.uid}: {types}, expected {self.types}"
        shown = (task.state.value, task.task_seq, task.launched, task.tidy, task.deleted, task.stalled, task.size_told)
        expected = (self.state, len(self.types), self.launched, self.tidy, self.deleted, self.stalled, self.size_told)
        assert shown == expected, f"{self.uid} is {shown}, expected {expected}"
        percent = task.progress.percent if task.progress is not None else None
        assert percent == self.percent, f"{self.uid} shows {percent} %, expected {self.percent} %"
        if not task.done:
            assert task.misses == self.misses, f"{self.uid} has {task.misses} misses, expected {self.misses}"
        ends = [kind for kind in types if kind in FINAL]
        assert len(ends) == self.done, f"{self.uid} ended more than once: {types}"
        self._check_posts(rows, crashed)

    def _check_posts(self, rows: list[Delivery], crashed: bool) -> None:
        assert [row.id for row in rows] == list(self.posts), f"{[row.id for row in rows]} after {self.types}"
        for row, post in zip(rows, self.posts.values(), strict=True):
            found = (row.state.value, row.attempts)
            if crashed and found != (post.state, post.attempts):
                earlier = [been for been in post.been if been[:2] == found]
                assert earlier, f"{post.id} is {found}, expected one of {post.been}"
                post.state, post.attempts, post.rejects, post.due = earlier[-1]
            assert found == (post.state, post.attempts), f"{post.id} is {found}, expected {post}"
