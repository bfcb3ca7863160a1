"""The documents: what they link to is there, and in the repository, not only in somebody's working tree."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("bundles/*/docs/**/*.md"), *ROOT.glob("*/README.md")])


def targets(document):
    """Files that a document links to or shows, without addresses."""
    found = {match for match in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in match}
    return {target: document.parent / target for target in sorted(found)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    assert [target for target, path in targets(document).items() if not path.exists()] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no working tree of git")
def test_nothing_that_a_document_links_to_is_ignored_by_git():
    linked = {str(path.resolve().relative_to(ROOT)) for d in DOCUMENTS for path in targets(d).values()}
    files = [str(f.relative_to(ROOT)) for name in linked for f in _files(ROOT / name)]
    asked = subprocess.run(["git", "check-ignore", "--stdin"], cwd=ROOT, input="\n".join(files), text=True,
                           capture_output=True, check=False)  # fmt: skip
    assert (asked.stdout, asked.stderr) == ("", "")


def _files(path):
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
