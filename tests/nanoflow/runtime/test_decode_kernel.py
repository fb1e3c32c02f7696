"""The Triton kernel's numbers: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds only")

import torch.nn.functional as F  # noqa: E402, N812 (after the choice above)

from melange.nanoflow.runtime.decode_kernel import paged_decode_attention  # noqa: E402


@pytest.mark.parametrize(("heads", "kv_heads", "page_tokens"), [(8, 2, 4), (4, 4, 16), (32, 1, 1)])
def test_equals_attention_over_gathered_pages(heads: int, kv_heads: int, page_tokens: int) -> None:
    torch.manual_seed(5)
    lengths = torch.tensor([1, 63, 64, 65, 130], device=DEVICE)
    tables = torch.stack([torch.randperm(200)[: -(-130 // page_tokens)] for _ in lengths]).to(DEVICE)
    queries = torch.randn(len(lengths), heads, 16, device=DEVICE)
    keys, values = torch.randn(2, 200, page_tokens, kv_heads, 16, device=DEVICE)
    produced = paged_decode_attention(queries, keys, values, tables, lengths)
    for row, length in enumerate(lengths.tolist()):
        key, value = (half[tables[row]].flatten(0, 1)[:length].transpose(0, 1)[None] for half in (keys, values))
        wanted = F.scaled_dot_product_attention(queries[row, None, :, None], key, value, enable_gqa=True)
        torch.testing.assert_close(produced[row], wanted[0, :, 0], rtol=1e-5, atol=1e-5)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from melange.nanoflow.decode_kernel import _kernel

for capability in (80, 90):
    for dtype, size in (("fp16", 128), ("bf16", 64)):
        pointers = dict.fromkeys(("queries", "keys", "values", "output"), "*" + dtype)
        signature = pointers | {"tables": "*i64", "lengths": "*i64", "scale": "fp32"}
        signature |= dict.fromkeys(("table_stride", "page_stride", "token_stride", "head_stride"), "i32")
        constants = {"HEADS": 32, "GROUP": 4, "ROWS": 16, "SIZE": size, "PAGE": 16, "BLOCK": 64}
        signature |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=_kernel, signature=signature, constexprs=constants)
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert built.asm["cubin"]
print("compiled")
"""


def test_compiles_for_gpus_that_are_not_here() -> None:
    """The interpreter accepts what the compiler does not: Triton brings NVIDIA's assembler, so a GPU is not needed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout == "compiled\n", done.stderr
