"""Execute the notebooks: the tests compare what comes out, ``python tests/run_notebooks.py`` writes it into them."""

from __future__ import annotations

import math
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
WARNINGS_ARE_ERRORS = "import warnings\n\nwarnings.simplefilter('error')"
RELATIVE = 1e-6
_TOKEN = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[^\W\d]+|[^\w\s]")


def read(path):
    return nbformat.read(path, as_version=4)


def executed(path):
    """The notebook with what a fresh kernel gives, nothing in it that changes from run to run."""
    from nbclient import NotebookClient

    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = read(path)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(WARNINGS_ARE_ERRORS))
    place = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place, record_timing=False).execute()
    notebook.cells.pop(0)
    notebook.metadata = nbformat.from_dict({"kernelspec": {"display_name": "Python 3", "name": "python3"}})
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.parts, self.hidden = [], False

    def handle_starttag(self, tag, attrs):
        self.hidden = tag == "style"

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def shown(output):
    """The text of an output as a reader sees it; of a figure only that there is one."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    if "image/png" in output.data:
        return "figure"
    if "text/html" in output.data:
        parser = _Text()
        parser.feed(output.data["text/html"])
        return " ".join(parser.parts)
    return output.data.get("text/plain", "")


def differences(stored, fresh):
    """Where two notebooks' outputs differ in a word, or in a number by more than a millionth; a line for each cell."""
    found = []
    for number, (old, new) in enumerate(zip(code_cells(stored), code_cells(fresh), strict=True), start=1):
        ours, theirs = (_TOKEN.findall("\n".join(map(shown, cell.outputs))) for cell in (old, new))
        apart = [f"{a} is now {b}" for a, b in zip(ours, theirs, strict=False) if not _same(a, b)]
        if len(ours) != len(theirs):
            apart.append(f"{len(ours)} words and numbers are now {len(theirs)}")
        if apart:
            found.append(f"code cell {number}: {apart[0]} ({len(apart)} differences)")
    return found


def _same(old, new):
    if old == new:
        return True
    try:
        return math.isclose(float(old), float(new), rel_tol=RELATIVE, abs_tol=1e-12)
    except ValueError:
        return False


def main(names):
    for path in NOTEBOOKS:
        if not names or path.stem in names:
            nbformat.write(executed(path), path)
            print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
