"""Every notebook uses only the public face, defines nothing, and gives again the figures that it is committed with."""

from __future__ import annotations

import ast
import copy
import re

import nbformat
import pytest
from run_notebooks import NOTEBOOKS, code_cells, differences, executed, read

import melange

LIBRARIES = {"dataclasses", "matplotlib.pyplot", "melange", "numpy", "pandas"}
MOST_BYTES = 700_000
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 4


def nodes(path):
    return [node for cell in code_cells(read(path)) for node in ast.walk(ast.parse(cell.source))]


@each
def test_notebooks_define_nothing(path):
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    assert [ast.unparse(node) for node in nodes(path) if isinstance(node, definitions)] == []


@each
def test_notebooks_use_only_the_face(path):
    modules = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
            if node.module == "melange":
                assert {alias.name for alias in node.names} <= set(melange.__all__)
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")
    assert modules <= LIBRARIES


@each
def test_outputs_are_committed(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("text/html" in output.get("data", {}) for output in outputs)
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert path.stat().st_size < MOST_BYTES


@each
def test_outputs_name_no_machine(path):
    """No paths of the machine that made them, no addresses of objects, no complaints."""
    for output in (output for cell in code_cells(read(path)) for output in cell.outputs):
        assert output.get("name") != "stderr"
        texts = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
        assert not any(re.search(r"0x[0-9a-f]{6,}|/(home|root|tmp|usr|Users|work|opt)/", text) for text in texts)


@pytest.mark.notebook
@pytest.mark.filterwarnings("default")  # of the client's own event loop; the kernel turns its warnings into errors
@each
def test_notebook_gives_its_figures_again(path):
    found = differences(read(path), executed(path))
    assert found == [], "'python tests/run_notebooks.py' writes them anew where this is meant"


TABLE = "<style>td {top: 1px}</style><table><tr><td>1.25</td><td>2 x L4</td></tr></table>"


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("1.25", "1.2500000001", False),
        ("1.25", "1.25001", True),
        ("1.25", "-1.25", True),
        ("L4", "L40", True),
        ("<td>", '<td class="right">', False),
        ("1px", "2px", False),
        ("</table>", "<tr><td>3</td></tr></table>", True),
    ],
)
def test_outputs_differ_by_a_number_or_a_word(old, new, differs):
    output = nbformat.v4.new_output("execute_result", data={"text/html": TABLE}, execution_count=1)
    cell = nbformat.v4.new_code_cell("table", outputs=[output], execution_count=1)
    stored = nbformat.v4.new_notebook(cells=[cell])
    fresh = copy.deepcopy(stored)
    fresh.cells[0].outputs[0].data["text/html"] = TABLE.replace(old, new)
    assert bool(differences(stored, fresh)) is differs


def test_a_failed_cell_and_a_missing_figure_are_differences():
    figure = nbformat.v4.new_output("display_data", data={"image/png": "AA==", "text/plain": "<Figure>"})
    stored = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw", outputs=[figure])])
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    for outputs in ([], [error]):
        assert differences(stored, nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw", outputs=outputs)]))
    assert differences(stored, copy.deepcopy(stored)) == []
