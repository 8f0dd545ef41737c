"""docs/reliability.md and the tests are mirrors of each other: what is named is there, and what is there is named."""

import re
from pathlib import Path

import pytest

from tests.test_promises import NAMES

ROOT = Path(__file__).parent
PAGE = (ROOT.parent / "docs" / "reliability.md").read_text()
MIRRORED = ("crash", "faults", "properties", "security")
FAULTS = (
    "Crashes",
    "Disks",
    "Time",
    "Backends that misbehave",
    "Identity and rights",
    "Limits and back-pressure",
    "Secrets",
    "Saying why",
    "Hostile input",
)


def section(number: int, title: str) -> str:
    found = re.search(rf"(?ms)^### {number}\. {re.escape(title)}\n(.*?)(?=^###? |\Z)", PAGE)
    assert found, f"there is no section {number}. {title}"
    return found[1]


def promises(text: str) -> list[list[str]]:
    """Cells of the rows of a section's table, without its head."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")]
    return rows[1:]


def named_in(text: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", text)


def test_every_named_test_is_there() -> None:
    assert [name for name in named_in(PAGE) if name not in NAMES] == []


@pytest.mark.parametrize(("number", "title"), list(enumerate(FAULTS, 1)))
def test_every_kind_of_fault_says_what_is_promised_how_it_is_shown_and_what_is_not_promised(number: int, title: str) -> None:
    text = section(number, title)

    assert promises(text)
    for row in promises(text):
        assert len(row) == 4, row
        assert row[2] in {"track", "run", "both"}, row
        assert named_in(row[3]), row
    assert re.search(r"(?m)^Not promised: ", text)


def test_every_test_file_of_the_mirrored_folders_is_named() -> None:
    there = {str(path.relative_to(ROOT)) for folder in MIRRORED for path in (ROOT / folder).glob("**/test_*.py")}
    named = set(re.findall(rf"`((?:{'|'.join(MIRRORED)})/[\w/]*test_\w+\.py)`", PAGE))

    assert there - named == set(), "say in docs/reliability.md what these show"
    assert named - there == set(), "docs/reliability.md names what is not there"
