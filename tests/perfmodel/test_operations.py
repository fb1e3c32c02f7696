"""The operations of a layer and what each waits for."""

from __future__ import annotations

from melange.perfmodel.operations import layer_kinds, parent_kinds


def test_parents_follow_the_data_flow() -> None:
    assert parent_kinds("kqv", 1) == ("down",)
    assert parent_kinds("kqv", 2) == ("down_all_reduce",)
    assert parent_kinds("o", 2) == ("decode_attention", "prefill_attention")
    assert parent_kinds("up_gate", 1) == ("o",)
    assert parent_kinds("up_gate", 2) == ("o_all_reduce",)
    assert "o_all_reduce" not in layer_kinds(1)
