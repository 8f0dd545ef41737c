"""Built-in kinds, and plug-ins made on the spot: a directory with entry points, as pip would leave it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from task_daemon.backends import process
from task_daemon.backends.registry import BUILT_IN, find_family, known_families
from task_daemon.backends.simulated import SimulatedSettings
from task_daemon.core.errors import ConfigError

Install = Callable[[str, str], None]

GOOD = """
from task_daemon.backends.simulated import SimulatedBackend, SimulatedSettings
from task_daemon.core.ports import Family
FAMILY = Family(name="tape", settings=SimulatedSettings, make=SimulatedBackend)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    modules: list[str] = []

    def plug_in(name: str, code: str) -> None:
        module = f"plug_in_{name}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"task_daemon_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: task-daemon-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[task_daemon.backends]\ntape = {module}:FAMILY\n")

    monkeypatch.syspath_prepend(tmp_path)
    yield plug_in
    for module in modules:
        sys.modules.pop(module, None)


def test_built_in_kinds_are_known() -> None:
    assert [*BUILT_IN] == ["process", "storage", "simulated"]
    assert [find_family(name).name for name in BUILT_IN] == [*BUILT_IN]
    assert {"process", "storage", "simulated"} <= set(known_families())
    assert find_family("process") is process.FAMILY


def test_kind_is_refused_with_the_known_ones_when_unknown() -> None:
    with pytest.raises(
        ConfigError, match=r"cannot use backend 'tape': there is no such kind; known: .*process, simulated, storage"
    ):
        find_family("tape")


def test_plug_in_is_used_when_a_zone_names_its_kind(install: Install) -> None:
    install("tape", GOOD)

    assert "tape" in known_families()
    assert find_family("tape").settings is SimulatedSettings


def test_plug_in_is_not_imported_when_no_zone_names_its_kind(install: Install) -> None:
    install("tape", "raise SystemError('imported')")

    assert find_family("simulated").name == "simulated"
    assert "tape" in known_families()


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1", "cannot be loaded: AttributeError"),
        ("FAMILY = 1", "must be a task_daemon.core.ports.Family named 'tape'"),
        (GOOD.replace('"tape"', '"disc"'), "must be a task_daemon.core.ports.Family named 'tape'"),
    ],
)
def test_plug_in_is_named_when_it_is_broken(install: Install, code: str, cause: str) -> None:
    install("tape", code)

    with pytest.raises(ConfigError, match="cannot use backend 'tape': plug-in task-daemon-tape") as refused:
        find_family("tape")

    assert cause in str(refused.value)


def test_both_plug_ins_are_named_when_two_offer_the_same_kind(install: Install) -> None:
    install("tape", GOOD)
    install("drum", GOOD)

    with pytest.raises(ConfigError, match=r"task-daemon-drum, task-daemon-tape"):
        find_family("tape")


def test_built_in_kind_wins_when_a_plug_in_has_its_name(install: Install, tmp_path: Path) -> None:
    install("tape", GOOD)
    points = tmp_path / "task_daemon_tape-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace("tape =", "process ="))

    assert find_family("process") is process.FAMILY
