"""Processes on this host: the default zone `local`, which needs no configuration.

`process` watches a process that somebody else started, `command` runs one (see `watch.py` and `command.py`).
"""

from task_daemon.backends.process.backend import ProcessBackend
from task_daemon.backends.process.settings import ProcessSettings
from task_daemon.core.ports import Family

FAMILY = Family(name="process", settings=ProcessSettings, make=ProcessBackend)

__all__ = ["FAMILY", "ProcessBackend", "ProcessSettings"]
