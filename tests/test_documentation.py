"""README and guides: each block of Python runs, each link leads somewhere, each table is of kept results.

The first block of a page is complete. Each later one runs with what the first one has defined, and no more,
so that a reader can paste it after the first. A block titled "needs NAME" is skipped where that is missing,
one titled "on BACKEND" runs there. All others run on PyTorch, which starts fastest.
"""

import contextlib
import io
import pathlib
import re
import runpy
import subprocess
import sys

import keras
import pytest

import keras_dnn_extras as kdx

ROOT = pathlib.Path(kdx.__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^```(\w+)?(?: title=\"([^\"]*)\")?[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
BACKEND = keras.backend.backend()


def python_blocks(page):
    """Return (title, code) of each block of Python."""
    blocks = FENCE.findall(page.read_text())
    return [(title, code) for language, title, code in blocks if language == "python"]


def skip_unless_it_runs_here(title):
    for backend in re.findall(r"\bon (\w+)", title):
        if backend.lower() != BACKEND:
            pytest.skip(f"it is for {backend}")
    for name in re.findall(r"needs ([\w.-]+)", title):
        pytest.importorskip(name.replace("-", "_"))


def page_name(page):
    return page.relative_to(ROOT).as_posix()


def has_a_block_for_this_backend(page):
    return any(f"on {BACKEND}" in title.lower() for title, _ in python_blocks(page))


def pages_that_run_here():
    pages = [page for page in PAGES if python_blocks(page)]
    return pages if BACKEND == "torch" else list(filter(has_a_block_for_this_backend, pages))


@pytest.mark.parametrize("page", pages_that_run_here(), ids=page_name)
def test_each_block_of_a_page_runs_after_its_first(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (title, first), *later = python_blocks(page)
    skip_unless_it_runs_here(title)
    names = {"__name__": "__main__"}
    run(first, names, f"{page_name(page)}, block 1")
    skipped = []
    for number, (title, code) in enumerate(later, start=2):
        try:
            skip_unless_it_runs_here(title)
        except pytest.skip.Exception as reason:
            skipped.append(f"block {number}: {reason}")
        else:
            run(code, names.copy(), f"{page_name(page)}, block {number}")
    keras.backend.clear_session()
    if skipped:
        pytest.skip("; ".join(skipped))


def run(code, names, where):
    """Run a block; the name of the page and of the block is in the traceback."""
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, where, "exec"), names)


def test_each_block_of_the_readme_runs_alone(tmp_path):
    blocks = python_blocks(README)
    assert blocks
    for _, code in blocks:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md", *PAGES], ids=page_name)
def test_each_link_to_a_file_leads_to_one(page):
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page_name(page)}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page_name(page)}: {target}"


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    names = re.findall(r"^::: (.*)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    } | set(names)


def test_the_reference_has_every_public_name_once():
    pages = (ROOT / "docs" / "reference").glob("*.md")
    names = [
        name
        for page in pages
        for name in re.findall(r"^::: keras_dnn_extras\.(\w+)$", page.read_text(), re.M)
    ]
    assert sorted(names) == sorted(kdx.__all__)


def test_every_page_is_in_the_navigation():
    navigation = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(navigation) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES)


def test_the_tables_of_the_benchmarks_are_of_kept_results():
    with_tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["with_tables"]
    page = ROOT / "docs" / "benchmarks.md"
    assert with_tables(page.read_text()) == page.read_text()
