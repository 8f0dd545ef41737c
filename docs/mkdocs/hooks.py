"""Takes the pages and files of the repository that documentation links to into the site, under `project/`, and the contract."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from docs import openapi_page

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
UNITS = [f"systemd/{folder}task-daemon.{kind}" for folder in ("", "user/") for kind in ("service", "socket")]
SOURCES = {"etc/task-daemon.toml": "toml"} | dict.fromkeys(UNITS, "ini")
LINK = re.compile(r"(?<=\]\()([^)#\s]+)")


def on_files(files: Files, *, config: Any) -> Files:
    for name in PAGES:
        files.append(File.generated(config, f"project/{name}", content=(ROOT / name).read_text()))
    for name, language in SOURCES.items():
        text = f"# {Path(name).name}\n\n```{language}\n{(ROOT / name).read_text()}```\n"
        files.append(File.generated(config, f"project/{name}.md", content=text))
    files.append(File.generated(config, "openapi.md", content=openapi_page.markdown()))
    icon = ROOT / "client" / "task_client" / "dashboard" / "page" / "icon.svg"
    files.append(File.generated(config, "images/icon.svg", content=icon.read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links as they are right in the repository, made right in the site."""
    inside = page.file.src_uri.startswith("project/")

    def moved(found: re.Match[str]) -> str:
        target = found[1]
        if "://" in target:
            return target
        if not inside:
            name = target.removeprefix("../")
            return target if name == target else f"project/{name}{'.md' if name in SOURCES else ''}"
        if target.rstrip("/") == "docs":
            return "../README.md"
        if target in PAGES:
            return target
        return f"{target}.md" if target in SOURCES else f"../{target.removeprefix('docs/')}"

    return LINK.sub(moved, markdown)
