"""The documentation builds as a site without a warning: every page is in the navigation, every link leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docs" / "mkdocs" / "mkdocs.yml"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(CONFIG), "--site-dir", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return place


def test_every_page_is_there(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        name = "index" if page.name == "README.md" else page.stem
        assert (site / f"{name}.html").exists(), page.name
    assert 'id="post-v1-tasks-batch"' in (site / "openapi.html").read_text()
    for name in ("ARCHITECTURE.html", "etc/task-daemon.toml.html", "systemd/task-daemon.service.html"):
        assert (site / "project" / name).exists()
    assert not [*site.rglob("*.py")]


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//", re.IGNORECASE)

    assert [str(page) for page in site.rglob("*.html") if loads.search(page.read_text())] == []


def test_pictures_are_shown(site: Path) -> None:
    for page in site.rglob("*.html"):
        for source in re.findall(r"<img[^>]*?src=\"([^\"]+)\"", page.read_text()):
            assert (page.parent / source).resolve().exists(), f"{page.name}: {source}"
