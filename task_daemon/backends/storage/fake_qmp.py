"""A monitor on a real socket that answers from a list of jobs, or misbehaves in one chosen manner.

For tests and for trying out a zone without QEMU. Several clients at once are served, unless it is told to be as a real
monitor is: one client at a time, two waiting, the next ones refused.
"""

import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "fake"}, "capabilities": []}}
HUGE = 20 * 1024 * 1024  # bytes; qemu.qmp reads lines of at most 10 MiB
CROWD = 100_000  # events of a flood
DEEP = 100_000  # arrays in arrays; Python's parser goes about a thousand deep
NO = {"class": "GenericError", "desc": "no"}
LATE = 1.0  # seconds
SLOW = 0.02  # seconds between two bytes

Step = bytes | float | None
"""Send these bytes, wait so many seconds, hang up."""


class Asked(NamedTuple):
    """A command that has come in: its id, and what would be the right answer."""

    id: Any
    good: bytes


def line(message: Any) -> bytes:
    """One message as QEMU sends it."""
    return json.dumps(message).encode() + b"\r\n"


def event(name: str, **data: Any) -> bytes:
    return line({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})


def flood(count: int, status: str = "running") -> Iterator[bytes]:
    """So many events, a thousand at a time."""
    some = event("JOB_STATUS_CHANGE", status=status, id="j") * min(count, 1000)
    for _ in range(0, count, 1000):
        yield some


def bytewise(data: bytes) -> Iterator[Step]:
    for index in range(len(data)):
        yield data[index : index + 1]
        yield SLOW


def nested() -> bytes:
    return b'{"return": ' + b"[" * DEEP + b"]" * DEEP + b"}\r\n"


def big() -> bytes:
    """6 MB that are read in half a second and shown in several (measured with Python 3.11)."""
    return b"[" + b"[[]]," * 1_200_000 + b"0]"


GREETINGS: dict[str, Callable[[], Iterable[Step]]] = {
    "no greeting": lambda: (),
    "half a greeting": lambda: (line(GREETING)[:-2],),
    "half a greeting and the end": lambda: (line(GREETING)[:40], None),
    "one byte at a time": lambda: bytewise(line(GREETING)),
    "http": lambda: (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
    "another greeting": lambda: (line({"hello": "world"}),),
    "an array": lambda: (line([GREETING]),),
    "a big array": lambda: (big(), b"\n"),
    "an odd version": lambda: (line({"QMP": {"version": 7, "capabilities": {"oob": None}}}),),
    "deep nesting": lambda: (nested(),),
    "bytes that are no text": lambda: (b"\xff\xfe\x00\n",),
    "a huge line": lambda: (b"x" * HUGE, b"\n"),
    "nothing but events": lambda: flood(CROWD),
    "an event before the negotiation": lambda: (line(GREETING), event("RESUME")),
    "hangs up at once": lambda: (None,),
}
"""What is done instead of the greeting."""

REPLIES: dict[str, Callable[[Asked], Iterable[Step]]] = {
    "silence": lambda _: (),
    "half a reply": lambda asked: (asked.good[:-6],),
    "half a reply and the end": lambda asked: (asked.good[:-6], None),
    "one byte at a time": lambda asked: bytewise(asked.good),
    "a late reply": lambda asked: (LATE, asked.good),
    "garbage": lambda _: (b"}{ nonsense\n",),
    "an array": lambda _: (line([1, 2, 3]),),
    "deep nesting": lambda _: (nested(),),
    "a foreign id": lambda _: (line({"return": [], "id": "somebody else's"}),),
    "an id that is no text": lambda asked: (line({"return": [], "id": [asked.id]}),),
    "a big answer for somebody else": lambda _: (b'{"return": ', big(), b', "id": "somebody else\'s"}\n'),
    "a big array": lambda _: (big(), b"\n"),
    "a big error without id": lambda _: (b'{"error": ', big(), b"}\n"),
    "no id": lambda _: (line({"return": []}),),
    "a refusal of somebody else": lambda _: (line({"error": NO, "id": "somebody else's"}),),
    "an error without id": lambda _: (line({"error": {"class": "GenericError", "desc": "JSON parse error"}}),),
    "a malformed error": lambda asked: (line({"error": {"oops": 1}, "id": asked.id}),),
    "an error that is a text": lambda asked: (line({"error": "no", "id": asked.id}),),
    "neither return nor error": lambda asked: (line({"id": asked.id}),),
    "a refusal": lambda asked: (line({"error": NO, "id": asked.id}),),
    "a huge line": lambda _: (b'{"return": ["', b"x" * HUGE, b'"]}\r\n'),
    "null": lambda asked: (line({"return": None, "id": asked.id}),),
    "a number": lambda asked: (line({"return": 7, "id": asked.id}),),
    "another greeting": lambda _: (line(GREETING),),
    "a flood of events": lambda _: flood(CROWD),
    "bytes that are no text": lambda _: (b"\xff\xfe\n",),
    "hanging up": lambda _: (None,),
}
"""What is done instead of replying to a command (after the handshake)."""

JOBS: dict[str, Any] = {
    "an object": {},
    "a text": "query-jobs",
    "numbers": [1, 2, 3],
    "nulls": [None, None],
    "jobs without a name": [{"status": "running"}, {"status": "concluded"}],
    "names that are no texts": [{"id": 7, "status": "concluded"}, {"id": ["task"], "status": "running"}],
    "lists in lists": [[{"id": "j", "status": "concluded"}]],
}
"""What query-jobs may answer that is well-formed and still cannot be a list of jobs."""


class FakeQmp:
    """Serves `path` until closed. `greeting` and `reply` are names of the tables above; both may be changed at any time.

    `script` holds names of replies for the next commands, "" for a good one; when it is used up, `reply` counts.
    `jobs` is the answer to query-jobs, whatever it holds; `commands` are the names of the commands received so far.
    `one_client`: as a real monitor, who is connected keeps all others waiting (measured: two wait, the next gets EAGAIN).
    """

    def __init__(self, path: str, greeting: str = "", reply: str = "", one_client: bool = False) -> None:
        self.greeting = greeting
        self.reply = reply
        self.script: deque[str] = deque()
        self.jobs: Any = []
        self.commands: list[str] = []
        self.connections = 0
        self._one_client = one_client
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(1 if one_client else 128)
        self._run(self._accept)

    def __enter__(self) -> "FakeQmp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closing.set()
        self._shut(self._listener)
        with self._lock:
            for sock in self._open:
                self._shut(sock)
            threads = list(self._threads)
        for thread in threads:
            thread.join(5)
        self._listener.close()

    def send_event(self, name: str, **data: Any) -> None:
        """To all clients that are there."""
        self.send(event(name, **data))

    def send(self, data: bytes) -> None:
        """Any bytes to all clients that are there, although nobody asked."""
        with self._lock:
            clients = list(self._open)
        for sock in clients:
            with contextlib.suppress(OSError):
                sock.sendall(data)

    @property
    def clients(self) -> int:
        """How many are connected."""
        with self._lock:
            return len(self._open)

    def hang_up(self) -> None:
        """On all clients that are there."""
        with self._lock:
            for sock in self._open:
                self._shut(sock)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closing.is_set():
                sock, _ = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    self._open.add(sock)
                if self._one_client:
                    self._serve(sock)
                else:
                    self._run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, contextlib.suppress(OSError):
                greeting = GREETINGS[self.greeting]() if self.greeting else (line(GREETING),)
                if self._do(sock, greeting):
                    self._converse(sock)
        finally:
            with self._lock:
                self._open.discard(sock)

    def _converse(self, sock: socket.socket) -> None:
        """qemu.qmp sends its commands without a newline, so they are told apart by their JSON."""
        pending = ""
        while received := sock.recv(65536):
            pending += received.decode()
            while pending := pending.lstrip():
                try:
                    command, end = json.JSONDecoder().raw_decode(pending)
                except ValueError:
                    break
                pending = pending[end:]
                if not self._do(sock, self._answer(command)):
                    return

    def _do(self, sock: socket.socket, steps: Iterable[Step]) -> bool:
        """False: hang up."""
        for step in steps:
            if step is None or self._closing.is_set():
                return False
            if isinstance(step, bytes):
                sock.sendall(step)
            elif self._closing.wait(step):
                return False
        return True

    def _answer(self, command: dict[str, Any]) -> Iterable[Step]:
        name, command_id = str(command.get("execute")), command.get("id")
        self.commands.append(name)
        good = line({"return": self.jobs if name == "query-jobs" else [] if "block" in name else {}, "id": command_id})
        if name == "qmp_capabilities":
            return (good,)
        manner = self.script.popleft() if self.script else self.reply
        return REPLIES[manner](Asked(command_id, good)) if manner else (good,)

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        def work() -> None:
            function(*arguments)
            with self._lock:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=work, name="fake-qmp", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    @staticmethod
    def _shut(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
