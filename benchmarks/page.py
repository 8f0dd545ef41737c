"""`docs/performance.md` and its plots, from the results and from nothing else.

    make performance-page

Results of this machine's last runs lie in `benchmarks/results/` and belong to nobody else. Making the page publishes them, into
`docs/performance.json`: what was measured now replaces what was there of the same row, the rest stays.

Each plot carries the digest of what it was drawn from, so that a test can tell when it is out of step.
"""

import hashlib
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.__main__ import names
from benchmarks.harness.row import QUIET, RESULTS, Row, bound, number, ratio_of
from benchmarks.peers.system import NAMES

Result = dict[str, Any]

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "performance.md"
PUBLISHED = DOCS / "performance.json"
PEERS = ("peers_w1", "peers_w2", "peers_w3")
ROWS = [f"P{n}" for n in range(1, 16)]
OURS = "task-daemon"
LESS = ("p99", "p50", "max", "CPU", "RSS", "PSS", "slowest", "late", "missing", "not called", "from the end")
"""What a figure of a peers' table is called when less of it is better."""

WHY = {
    (
        "w1",
        "Huey",
    ): "it inserts into SQLite within the caller's own process: there is no request and no server. In return every process "
    "that registers needs the file, they wait for each other's locks (see the slowest), and nothing checks who may do what.",
    (
        "w1",
        "Dramatiq",
    ): "a Redis command is parsed in C by Redis and costs less than an HTTP request parsed in Python; it checks nothing but "
    "that there is a message.",
    ("w1", "RQ"): "a Redis command is parsed in C by Redis and costs less than an HTTP request parsed in Python.",
    ("w1", "Celery"): "a Redis command is parsed in C by Redis and costs less than an HTTP request parsed in Python.",
    ("w2", "Huey"): "one process with SQLite's small cache, and nothing in memory: what is due is read from the file.",
    ("w2", "Dramatiq"): "its operations lie in Redis.",
    ("w2", "RQ"): "it fell behind, and holds little while it does.",
    ("w2", "Celery"): "its prefork workers hold what is due in memory.",
    ("w3", "Huey"): "its workers send a callback without a durable record of the end and of each try.",
    ("w3", "Dramatiq"): "its workers send a callback without a durable record of the end and of each try.",
}
"""Why a peer can be better; shown only where the figures say that it is."""


def main() -> None:
    from benchmarks import plots  # needs matplotlib; the text does not

    publish()
    rows, peers = published()
    drawn = plots.draw(rows, peers, DOCS)
    PAGE.write_text(text(rows, peers))
    print(f"written: {', '.join(str(path.relative_to(DOCS.parent)) for path in (PAGE, PUBLISHED, *drawn))}")


def publish() -> None:
    """Take in the results of this machine."""
    found = json.loads(PUBLISHED.read_text()) if PUBLISHED.exists() else {}
    found |= {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    kept = {name: result for name, result in sorted(found.items()) if name in names() or name in PEERS}
    PUBLISHED.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def published() -> tuple[list[Result], list[Result]]:
    """The rows by number, and the peers."""
    found = json.loads(PUBLISHED.read_text())
    rows = [result for name, result in found.items() if name not in PEERS]
    return sorted(rows, key=lambda result: int(result["row"][1:])), [found[name] for name in PEERS if name in found]


def row_of(name: str) -> Row:
    """The row of `benchmarks/<name>.py`."""
    row = import_module(f"benchmarks.{name}").ROW
    assert isinstance(row, Row)
    return row


def digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def judged(rows: Sequence[Result]) -> list[tuple[str, Result]]:
    """Figures with a ratio to a target, and how they are called in the plot."""
    return [
        (f"{result['row']}  {each['what']}", each) for result in rows for each in result["figures"] if ratio_of(each) is not None
    ]


def expected_plots(rows: Sequence[Result], peers: Sequence[Result]) -> Mapping[str, str]:
    """Names of the plots, and the digest of what each is drawn from."""
    found = {"performance-targets.svg": digest([(label, each) for label, each in judged(rows)])} if judged(rows) else {}
    return found | {f"performance-{result['work']}.svg": digest(result) for result in peers}


# --------------------------------------------------------------------------- text


def text(rows: Sequence[Result], peers: Sequence[Result]) -> str:
    """The page, as Markdown."""
    parts = [
        "# Performance",
        (
            "How fast this is, what it costs, where others are better, and how to measure it again. Every figure comes from "
            "`make bench` and `make bench-peers`; `make performance-page` made this page of their results and nobody edits it."
        ),
        machine_line(rows, peers),
        "## Sizing a machine",
        *cost_model(rows),
        "## Targets and what is reached",
        (
            "*Ratio* is how much better than its target a figure is: from 1 on it is reached, 2 is "
            "twice as good. The *gate* must hold even "
            "where the target is missed. Figures without a target are there to compare with. Client and daemon share the machine."
        ),
        "![ratio of each figure to its target](performance-targets.svg)" if judged(rows) else "",
        *row_table(rows),
        missing(rows),
        *notes(rows),
        "## Beside what people would use instead",
        *peers_part(peers),
        "## The machine",
        *machine_part(rows, peers),
        "## Measuring it yourself",
        REPEATING,
    ]
    return "\n\n".join(part for part in parts if part).rstrip() + "\n"


REPEATING = """\
```sh
make bench              # every row, at most 20 minutes; leave the machine alone meanwhile
make bench-peers        # Huey, RQ, Celery and Dramatiq in a venv of their own; about 10 minutes
make performance-page   # this page
.venv/bin/python -m benchmarks.p01_registrations --quick --directory /srv    # one row, small, on another disk
```

A result says how many cores other programs used meanwhile. Above 0.1 a run is not quiet: rates fall, the slowest of a
hundred suffers most, CPU for each and ratios within one run least. What is compared is measured in turns within the
same round; a figure is the median of its rounds unless it says *worst*. Scale rates to another machine by the bare
Tornado server of the same run (P1), and registrations over one connection by the time of a flush: each waits for one."""


COSTS = {
    "registration": ("P1", "cpu"),
    "batch": ("P3", "cpu_100"),
    "poll": ("P7", "cpu"),
    "single": ("P6", "cpu"),
    "callback": ("P10", "cpu_1000"),
    "memory": ("P9", "bytes"),
}
"""What the cost model is made of: rows and the names of their figures."""


def cost_model(rows: Sequence[Result]) -> list[str]:
    """Sentences to size a machine with, as far as there are figures."""
    costs = {name: found for name, (code, figure) in COSTS.items() if (found := figure_of(rows, code, figure))}
    lines = [sentence for name, found in costs.items() if (sentence := cost(name, found))]
    if not lines:
        return ["Not measured yet."]
    lines.append("- A poll that learns nothing new does not touch the disk. An end and its callbacks are one commit.")
    return [
        "Add up what you do a second; the sum is cores of the daemon. It is one process: plan with at most one core.",
        "\n".join(lines),
    ]


def cost(name: str, found: Result) -> str:
    each, us = shown(found), microseconds(found)
    per_core = number(two_digits(1e6 / us)) if us else "-"
    cores, mebibytes = number(us * 1e4 / 1e6), number(found["reached"] * 1e5 / 2**20)
    return {
        "registration": f"- **A registration** takes {each} of CPU: one core takes about {per_core} a second. Those that "
        "arrive at the same time share a flush of the disk.",
        "batch": f"- **In batches of 100** it takes {each}: about {per_core} a second.",
        "poll": f"- **Watching**, where one call answers for all tasks of a zone, takes {each} for each task and poll: "
        f"100,000 tasks looked at every 10 s take {cores} cores.",
        "single": f"- **Watching one by one**, where each task needs a call of its own, takes {each} for each call.",
        "callback": f"- **An end with its callback** takes {each}, its durable records before and after sending included.",
        "memory": f"- **A live task** takes {each} of memory: 100,000 take {mebibytes} MiB on top of the empty daemon.",
    }[name]


def figure_of(rows: Iterable[Result], code: str, name: str) -> Result | None:
    """Only one that was reached."""
    for result in rows:
        for each in result["figures"] if result["row"] == code else ():
            if each["name"] == name and each["reached"]:
                found: Result = each
                return found
    return None


def microseconds(found: Result) -> float:
    """A figure that is a time."""
    return float(found["reached"]) * {"µs": 1.0, "ms": 1e3, "s": 1e6}.get(found["unit"], 0.0)


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def shown(found: Result) -> str:
    return f"{number(found['reached'])} {found['unit']}"


def row_table(rows: Sequence[Result]) -> list[str]:
    if not rows:
        return []
    lines = ["| row | what | target | gate | reached | ratio | |", "|---|---|---|---|---|---|---|"]
    for result in rows:
        lines.append(f"| **{result['row']}** | **{result['what']}**{'' if result['quiet'] else ' (not quiet)'} | | | | | |")
        for each in result["figures"]:
            ratio = ratio_of(each)
            worst = " (worst)" if each["worst_of_rounds"] else ""
            cells = (bound(each, "target"), bound(each, "gate"), number(each["reached"]), "" if ratio is None else f"{ratio:.2f}")
            verdict = f"**{each['verdict']}**" if each["verdict"] == "missed" else each["verdict"]
            lines.append(f"| | {each['what']}, {each['unit']}{worst} | {' | '.join(cells)} | {verdict} |")
    return ["\n".join(lines)]


def missing(rows: Sequence[Result]) -> str:
    there = {result["row"] for result in rows}
    absent = [code for code in ROWS if code not in there]
    return f"Not measured: {', '.join(absent)}." if absent else ""


def notes(rows: Sequence[Result]) -> list[str]:
    lines = [f"- {result['row']}: {result['note']}" for result in rows if result["note"]]
    return ["\n".join(lines)] if lines else []


def machine_line(rows: Sequence[Result], peers: Sequence[Result]) -> str:
    found = [*rows, *peers]
    if not found:
        return "**Nothing has been measured yet.**"
    noisy = [result for result in found if result["others_cores"] > QUIET]
    days = sorted({result["at"][:10] for result in found})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    said = "the machine was quiet"
    if noisy:
        most = max(result["others_cores"] for result in noisy)
        said = f"in {len(noisy)} of {len(found)} runs other programs used more than {QUIET:g} cores (up to {number(most)})"
    return f"Measured {when}; {said}."


def machine_part(rows: Sequence[Result], peers: Sequence[Result]) -> list[str]:
    found = [*rows, *peers]
    if not found:
        return ["Not measured yet."]
    machine = max(found, key=lambda result: str(result["at"]))["machine"]
    flushes = sorted(result["machine"]["flush_us"] for result in found)
    loops = sorted(loop for result in rows for loop in result["machine"].get("loop_ms", []))
    return [
        (
            f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
            f"{machine['filesystem']}; Python "
            f"{machine['python']}, SQLite {machine['sqlite']}, Tornado {machine['tornado']}. Appending 4 KiB and "
            f"flushing them took "
            f"{number(flushes[0])} to {number(flushes[-1])} µs, which is little: a plain SSD takes 500 to 2,000 µs, a "
            f"hard disk 8,000. That is "
            "why P4 measures with slower flushes." + pace(loops)
        )
    ]


def pace(loops: Sequence[float]) -> str:
    """`loops`: milliseconds, in rising order."""
    if not loops:
        return ""
    return (
        f" A fixed loop of Python, run before each round, took {number(loops[0])} to {number(loops[-1])} ms, "
        f"{number(statistics.median(loops))} as a rule: this processor is shared with other machines, and by as "
        "much as it changes its speed the rates of one run differ from those of another."
    )


# --------------------------------------------------------------------------- peers


def peers_part(peers: Sequence[Result]) -> list[str]:
    if not peers:
        return ["Not measured yet: `make bench-peers`."]
    parts = [
        "Each is expressed as its own manual does: Celery retries itself with a countdown, RQ and Dramatiq enqueue "
        "again with a delay, Huey "
        "raises `RetryTask`; all call back with `requests.post`. Redis flushes every command before it answers "
        "(AOF always), as a promise to "
        "remember needs. "
        + ", ".join(f"{NAMES.get(name, name.capitalize())} {version}" for name, version in peers[0]["versions"].items())
        + ". Workers: 4 processes of Celery, 4 SimpleWorkers of RQ (its forking worker takes several times "
        "the CPU), 2 processes with 8 "
        "threads of Dramatiq, 4 threads of Huey.",
    ]
    for found in peers:
        parts += [f"### {found['what'][0].upper()}{found['what'][1:]}", plot_link(found), peers_table(found), better_peers(found)]
        parts += [f"{name} could not be measured: {reason}" for name, reason in found.get("failed", {}).items()]
    return parts


def plot_link(found: Result) -> str:
    return f"![{found['what']}](performance-{found['work']}.svg)"


def peers_table(found: Result) -> str:
    lines = ["| | " + " | ".join(found["figures"].values()) + " |", "|---" * (len(found["figures"]) + 1) + "|"]
    for each in found["systems"]:
        name = f"**{each['name']}**" if each["name"] == OURS else each["name"]
        cells = [number(each["median"].get(figure)) for figure in found["figures"]]
        lines.append(f"| {name} ({each['store']}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def better_peers(found: Result) -> str:
    """Where a peer is better than this daemon and why."""
    ours = next((each["median"] for each in found["systems"] if each["name"] == OURS), None)
    if ours is None:
        return ""
    lines = []
    for each in found["systems"]:
        if each["name"] == OURS:
            continue
        better = [
            f"{what} ({number(each['median'][name])} against {number(ours[name])})"
            for name, what in found["figures"].items()
            if name in each["median"] and name in ours and beats(what, each["median"][name], ours[name])
        ]
        if better:
            why = WHY.get((found["work"], each["name"]), "")
            lines.append(f"- **{each['name']} is better in** {', '.join(better)}{': ' + why if why else '.'}")
    return "\n".join(lines) if lines else "No peer is better in any of these."


def beats(what: str, peer: float, ours: float) -> bool:
    """By more than the noise: a twentieth."""
    return peer < ours / 1.05 if less_is_better(what) else peer > ours * 1.05


def less_is_better(what: str) -> bool:
    return any(re.search(rf"\b{re.escape(word)}", what) for word in LESS)


if __name__ == "__main__":
    main()
