"""What a `[zones.x]` table with `backend = "process"` may hold."""

from typing import Annotated

from msgspec import Meta, Struct


class ProcessSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`run`: whether commands may be started at all (watching always may). `log_bytes`: most output kept of a running
    command, in bytes. `grace`: seconds between SIGTERM and SIGKILL when a command is cancelled."""

    run: bool = True
    log_bytes: Annotated[int, Meta(ge=8192)] = 1_048_576
    grace: Annotated[float, Meta(ge=0, le=3600)] = 10.0
