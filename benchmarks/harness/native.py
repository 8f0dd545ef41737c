"""Programs in C, built with gcc when they are first wanted."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent.parent
BUILT = HERE / ".build"
SHARED = ("-shared", "-fPIC")


def program(name: str) -> Path:
    """`benchmarks/<name>.c`, built."""
    return _built(name, ())


def library(name: str) -> Path:
    """`benchmarks/<name>.c` as a shared library, for LD_PRELOAD."""
    return _built(name, SHARED)


def slow_disk(milliseconds: float) -> dict[str, str]:
    """What to put into the environment of a process so that each of its flushes lasts so much longer."""
    return {"LD_PRELOAD": str(library("slow_flush")), "FLUSH_DELAY_US": str(round(milliseconds * 1000))}


def _built(name: str, options: tuple[str, ...]) -> Path:
    source = HERE / f"{name}.c"
    built = BUILT / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not built.exists():
        if shutil.which("gcc") is None:
            raise SystemExit(f"cannot build {source.name}: gcc is not installed")
        BUILT.mkdir(exist_ok=True)
        new = built.with_name(f"{built.name}.{os.getpid()}")
        subprocess.run(["gcc", "-O2", "-Wall", *options, "-o", new, source], check=True)
        new.replace(built)  # two benchmarks may build at once
    return built
