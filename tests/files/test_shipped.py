from __future__ import annotations

import pytest

from melange.files import shipped
from melange.files.shipped import data_path


@pytest.mark.parametrize(
    "relative", ["profiles/catalog/gpus.yaml", "profiles/melange-2024", "profiles/schemas", "workloads"]
)
def test_what_is_shipped_is_there(relative):
    assert data_path(relative).exists()


def test_the_wheels_own_files_go_before_those_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "melange")
    inside, beside = tmp_path / "melange" / "_data" / "a.yaml", tmp_path / "a.yaml"
    assert data_path("a.yaml") == beside  # neither is there
    beside.write_text("")
    assert data_path("a.yaml") == beside
    inside.parent.mkdir(parents=True)
    inside.write_text("")
    assert data_path("a.yaml") == inside
