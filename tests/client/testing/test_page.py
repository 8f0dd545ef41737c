"""docs/testing.md: its examples run, by the plugin and nothing else, and its tables are those of the code."""

import re
import subprocess
import sys
from pathlib import Path

from task_client.testing import TaskDaemon
from task_daemon.backends.simulated import Job

PAGE = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()


def test_examples_pass(tmp_path: Path) -> None:
    examples = re.findall(r"(?ms)^```python\n# test: (.*?)\n(.*?)^```", PAGE)
    assert len(examples) == PAGE.count("```python")
    for number, (_, code) in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:tornado", "-p", "no:randomly", "."]

    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)

    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_every_member_is_in_the_page(task_daemon: TaskDaemon) -> None:
    fixture, scenarios = PAGE.partition("## Scenarios")[::2]
    members = {name for name in dir(TaskDaemon) if not name.startswith("_")} | set(vars(task_daemon))

    assert [name for name in members if not name.startswith("_") and name != "close" and f"| `{name}" not in fixture] == []
    assert [name for name in Job.__struct_fields__ if f"`{name}`" not in scenarios] == []
