from __future__ import annotations

from melange.serving.considered import Considered, LeftOut

CONSIDERED = Considered(
    gpus=("L4", "H100"),
    prices="price set 2026-11",
    precisions=("bf16",),
    tp=(1, 2, 8),
    checkpoint="bf16",
    batched_tokens=(512, 8192),
    left_out=(
        LeftOut(gpu="T4", reason="no offer"),
        LeftOut(gpu="L4", tp=2, reason="no machine"),
        LeftOut(gpu="L4", tp=8, reason="no machine"),
        LeftOut(gpu="A10G", tp=2, reason="no machine"),
        LeftOut(gpu="A10G", tp=8, reason="no machine"),
        LeftOut(gpu="L4", tp=1, precision="bf16", reason="does not fit", detail="3.0 GiB per GPU are missing"),
    ),
)


def test_it_says_among_what():
    assert CONSIDERED.describe() == (
        "2 GPU types of price set 2026-11, checkpoint precision bf16, TP 1-8, token budgets 512-8192"
    )
    one = Considered(gpus=("L4",), prices="the price file", precisions=("fp8",), tp=(2,), kv_dtypes=("auto", "fp8"))
    assert one.describe() == "L4 of the price file, fp8, TP 2, KV cache auto/fp8"
    few = Considered(gpus=("L4",), prices="the price file", precisions=("fp8",), tp=(2,), sequences=(256, 16))
    assert few.describe() == "L4 of the price file, fp8, TP 2, at most 16-256 requests at once"


def test_what_lacks_the_same_is_named_together():
    assert CONSIDERED.describe_left_out() == (
        "T4 (no offer in price set 2026-11); TP 2-8 on A10G, L4 (no machine of so many); TP 1 on L4/bf16 (does not fit)"
    )
