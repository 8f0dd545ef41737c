"""The zone of this host's processes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from task_daemon.backends.process.command import CommandAction
from task_daemon.backends.process.ends import Ends
from task_daemon.backends.process.settings import ProcessSettings
from task_daemon.backends.process.watch import WatchAction
from task_daemon.core.model import Report, Task
from task_daemon.core.ports import Action, ZoneContext


class ProcessBackend:
    """Never unreachable: the kernel always answers."""

    def __init__(self, settings: ProcessSettings, context: ZoneContext) -> None:
        self._ends = Ends(context.name)
        self._watch = WatchAction(self._ends)
        self._command = CommandAction(settings, context, self._ends)
        self.actions: Mapping[str, Action] = {action.name: action for action in (self._watch, self._command)}

    def admit(self, task: Task) -> dict[str, Any] | None:
        if task.action == self._watch.name:
            return self._watch.admit(task)
        self._command.admit(task)
        return None

    def poll(self, tasks: Sequence[Task]) -> Mapping[str, Report]:
        return {
            task.uid: self._watch.look(task) if task.action == self._watch.name else self._command.look(task) for task in tasks
        }

    def events(self, wake: Callable[[], None]) -> None:
        self._ends.start(wake)

    def close(self) -> None:
        self._ends.close()
