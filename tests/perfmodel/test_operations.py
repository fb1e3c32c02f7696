"""The operations of a layer and what each waits for."""

from __future__ import annotations

from melange.perfmodel.operations import DEFAULT_STREAM, DENSE_KINDS, layer_kinds, parent_kinds


def test_parents_follow_the_data_flow() -> None:
    assert parent_kinds("kqv", 1) == ("down",)
    assert parent_kinds("kqv", 2) == ("down_all_reduce",)
    assert parent_kinds("o", 2) == ("decode_attention", "prefill_attention")
    assert parent_kinds("up_gate", 1) == ("o",)
    assert parent_kinds("up_gate", 2) == ("o_all_reduce",)
    assert "o_all_reduce" not in layer_kinds(1)


def test_a_layer_in_the_order_of_its_data_flow() -> None:
    dense = ("kqv", "decode_attention", "prefill_attention", "o", "up_gate", "down")
    assert layer_kinds(1) == dense
    assert tuple(kind for kind in layer_kinds(2) if not kind.endswith("all_reduce")) == dense
    assert layer_kinds(8)[-1] == "down_all_reduce"
    for tp in (1, 2):
        kinds = layer_kinds(tp)
        for kind in kinds[1:]:
            assert all(kinds.index(parent) < kinds.index(kind) for parent in parent_kinds(kind, tp))


def test_every_operation_has_a_stream() -> None:
    assert set(DEFAULT_STREAM) == set(layer_kinds(2))
    assert {kind for kind, stream in DEFAULT_STREAM.items() if stream == "compute"} == set(DENSE_KINDS)
    assert {kind for kind, stream in DEFAULT_STREAM.items() if stream == "network"} == {
        "o_all_reduce",
        "down_all_reduce",
    }
