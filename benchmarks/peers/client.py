"""One registrant: registers operations with a peer and prints how long each took, as JSON.

python -m benchmarks.peers.client PEER FIRST-NUMBER AT SECONDS       as many as possible, from monotonic time AT on
python -m benchmarks.peers.client PEER FIRST-NUMBER AT COUNT due     COUNT of them, due evenly within an interval after AT
"""

import importlib
import json
import sys
import time

from benchmarks.peers.operation import INTERVAL

OWN = 1_000_000  # numbers of one registrant


def main() -> None:
    peer, first, at, amount, *due = sys.argv[1:]
    register = importlib.import_module(f"benchmarks.peers.on_{peer}").register
    if due:
        for n in range(int(amount)):
            register(int(first) + n, max(0.0, float(at) + n / int(amount) * INTERVAL - time.monotonic()))
        print("[]")
        return
    register(int(first))  # connects, and is not measured
    time.sleep(max(0.0, float(at) - time.monotonic()))
    taken: list[float] = []
    began, cpu = time.monotonic(), time.process_time()
    while (before := time.monotonic()) < began + float(amount):
        register(int(first) + 1 + len(taken))
        taken.append(time.monotonic() - before)
    print(json.dumps({"cpu": time.process_time() - cpu, "seconds": time.monotonic() - began, "taken": taken}))


if __name__ == "__main__":
    main()
