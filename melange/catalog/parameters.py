"""How many parameters the layers of a config.json hold, and what they keep of every token or sequence."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.config_values import ConfigValues
from melange.catalog.layers import TWO_MATRIX_MLP, Layers

_STATE_ELEMENT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One attention layer's heads and widths; ``parameters`` of its matrices.

    ``latent_elements`` is what a token keeps under latent attention, 0 otherwise.
    """

    heads: int
    kv_heads: int
    head_size: int
    value_size: int
    parameters: float
    latent_elements: int = 0
    attended_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One layer whose state does not grow: its matrices' parameters and its state's bytes a sequence."""

    parameters: float = 0.0
    state_bytes: float = 0.0


def attention_of(config: ConfigValues, hidden: int) -> Attention:
    """The attention that keeps every token: plain, grouped, gated or latent, with an indexer where one picks tokens."""
    heads = config.count("num_attention_heads", "n_head")
    if config.get("kv_lora_rank"):
        return _latent(config, hidden, heads)
    default = 1 if config.get("multi_query") else heads
    kv_heads = config.count("num_global_key_value_heads", "num_key_value_heads", "num_kv_heads", default=default)
    config.pass_over(("num_key_value_heads", "num_kv_heads"))
    size = config.count("global_head_dim", "head_dim", "attention_head_dim", default=hidden // heads or 1)
    config.pass_over(("head_dim", "attention_head_dim"))
    value = config.count("v_head_dim", default=size)
    gates = 2 if config.get("attn_output_gate") or config.get("attention_output_gate") else 1
    values = 0 if config.get("attention_k_eq_v") else kv_heads * value
    sparse = config.get("sparse_attention_config")
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        value_size=value,
        parameters=float(hidden * (gates * heads * size + kv_heads * size + values + heads * value)),
        attended_tokens=_sparse_tokens(sparse) if isinstance(sparse, dict) else 0,
    )


def _sparse_tokens(sparse: dict[str, object]) -> int:
    blocks, size = sparse.get("sparse_topk_blocks"), sparse.get("sparse_block_size")
    return blocks * size if isinstance(blocks, int) and isinstance(size, int) else 0


def _latent(config: ConfigValues, hidden: int, heads: int) -> Attention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): queries and one shared latent, both low-rank."""
    rank = config.count("kv_lora_rank")
    queries = config.count("q_lora_rank", default=0, least=0)
    rope, plain = config.count("qk_rope_head_dim"), config.count("qk_nope_head_dim")
    value = config.count("v_head_dim")
    size = rope + plain
    config.pass_over(("num_key_value_heads", "head_dim", "qk_head_dim"))
    down = hidden * queries + queries * heads * size if queries else hidden * heads * size
    parameters = down + hidden * (rank + rope) + rank * heads * (plain + value) + heads * value * hidden
    if config.get("mla_use_output_gate"):
        parameters += hidden * heads * value
    indexed = config.count("index_head_dim", default=0, least=0)
    if indexed:
        own = config.count("index_n_heads", default=1)
        parameters += (queries or hidden) * own * indexed + hidden * (indexed + own)
    return Attention(
        heads=heads,
        kv_heads=heads,
        head_size=size,
        value_size=value,
        parameters=float(parameters),
        latent_elements=rank + rope + round(indexed * _indexed_share(config)),
        attended_tokens=config.count("index_topk", default=0, least=0),
    )


def _indexed_share(config: ConfigValues) -> float:
    """Share of the layers that keep index keys of their own; the others use those of a layer before them."""
    kinds = config.get("indexer_types")
    config.pass_over(("index_topk_freq", "index_skip_topk_offset", "index_topk_pattern"))
    return sum(kind == "full" for kind in kinds) / len(kinds) if isinstance(kinds, list) and kinds else 1.0


def window_of(config: ConfigValues, hidden: int, full: Attention) -> tuple[float, float]:
    """(parameters, KV elements a token) of one window layer, where its heads are others than the full layers'."""
    heads = config.count("swa_num_attention_heads", default=full.heads)
    own = config.get("num_global_key_value_heads") is not None
    plain = config.count("num_key_value_heads", default=full.kv_heads) if own else full.kv_heads
    kv_heads = config.count("swa_num_key_value_heads", default=plain)
    size = config.count("swa_head_dim", default=config.count("head_dim", default=full.head_size))
    value = config.count("swa_v_head_dim", default=full.value_size if size == full.head_size else size)
    if full.latent_elements or (kv_heads, size, value) == (full.kv_heads, full.head_size, full.value_size):
        return full.parameters, 0.0
    return float(hidden * (heads * (size + value) + kv_heads * (size + value))), float(kv_heads * (size + value))


def linear_of(config: ConfigValues, hidden: int) -> Linear:
    """A layer of linear attention, gated delta rule or state space, by the keys that its family uses.

    Gated delta rule: arXiv 2412.06464. Mamba: arXiv 2312.00752; Mamba-2: arXiv 2405.21060. KeyError where none fits.
    """
    element = _STATE_ELEMENT_BYTES.get(str(config.get("mamba_ssm_dtype") or config.get("mamba_ssm_cache_dtype")), 4.0)
    if config.get("linear_num_value_heads"):
        return _delta_rule(
            config.count("linear_num_key_heads") * config.count("linear_key_head_dim"),
            config.count("linear_num_value_heads"),
            config.count("linear_value_head_dim"),
            config.count("linear_key_head_dim"),
            config.count("linear_conv_kernel_dim", default=4),
            hidden,
            element,
        )
    nested = config.get("linear_attn_config")
    if isinstance(nested, dict):
        own = ConfigValues(nested)
        heads, size = own.count("num_heads"), own.count("head_dim")
        return _delta_rule(heads * size, heads, size, size, own.count("short_conv_kernel_size", default=4), hidden, 4.0)
    if config.get("mamba_num_heads") or config.get("mamba_n_heads"):
        return _mamba_2(config, hidden, element)
    if config.get("mamba_d_state") or config.get("state_size"):
        return _mamba_1(config, hidden, element)
    if config.get("conv_L_cache"):  # LFM2: a short gated convolution
        return Linear(parameters=4.0 * hidden**2, state_bytes=2.0 * hidden * config.count("conv_L_cache"))
    heads = config.count("num_attention_heads")
    size = config.count("head_dim")
    return Linear(parameters=5.0 * hidden * heads * size, state_bytes=element * heads * size**2)


def _delta_rule(
    keys: int, value_heads: int, value_size: int, key_size: int, kernel: int, hidden: int, element: float
) -> Linear:
    values, mixed = value_heads * value_size, 2 * keys + value_heads * value_size
    parameters = hidden * (2 * keys + 2 * values + 2 * value_heads) + mixed * kernel + values * hidden
    return Linear(
        parameters=float(parameters),
        state_bytes=element * value_heads * key_size * value_size + 2.0 * mixed * (kernel - 1),
    )


def _mamba_2(config: ConfigValues, hidden: int, element: float) -> Linear:
    heads = config.count("mamba_num_heads", "mamba_n_heads")
    size = config.count("mamba_head_dim", "mamba_d_head")
    state = config.count("ssm_state_size", "mamba_d_state")
    groups = config.count("n_groups", "mamba_n_groups", default=1)
    kernel = config.count("conv_kernel", "mamba_d_conv", default=4)
    inner, mixed = heads * size, heads * size + 2 * groups * state
    return Linear(
        parameters=float(hidden * (inner + mixed + heads) + mixed * kernel + inner * hidden),
        state_bytes=element * heads * size * state + 2.0 * mixed * (kernel - 1),
    )


def _mamba_1(config: ConfigValues, hidden: int, element: float) -> Linear:
    inner = config.count("mamba_expand", "expand", default=2) * hidden
    state, kernel = config.count("mamba_d_state", "state_size"), config.count("mamba_d_conv", "conv_kernel", default=4)
    rank = config.count("mamba_dt_rank", "time_step_rank", default=-(-hidden // 16))
    return Linear(
        parameters=float(3 * hidden * inner + inner * (rank + 2 * state) + rank * inner + inner * (state + kernel)),
        state_bytes=(element * state + 2.0 * (kernel - 1)) * inner,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlps:
    """Parameters of one dense MLP, of one routed expert, and of what each layer of experts has beside them."""

    intermediate: int
    dense: float
    expert: float
    shared: float
    experts: int
    experts_per_token: int


def mlps_of(config: ConfigValues, kind: str, hidden: int, layers: Layers, experts: int) -> Mlps:
    """Widths and parameters of the MLPs; a mixture's ``intermediate`` is one expert's."""
    matrices = 2 if kind in TWO_MATRIX_MLP else 3
    width = config.count("intermediate_size", "n_inner", "ffn_hidden_size", default=0, least=0)
    if experts == 1:
        if not width and layers.dense:
            raise KeyError("intermediate_size")
        one = float(matrices * hidden * width)
        return Mlps(intermediate=width or 1, dense=one, expert=0.0, shared=0.0, experts=1, experts_per_token=1)
    own = config.count("moe_intermediate_size", "expert_ffn_hidden_size", default=width)
    inner = config.count("moe_latent_size", "routed_expert_hidden_size", default=hidden)
    shared = _shared_width(config, kind, own, width)
    dense = config.count("intermediate_size_mlp", "dense_intermediate_size", default=width, least=0)
    router = hidden * experts + (2 * hidden * inner if inner != hidden else 0)
    per_token = config.count(
        "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts", "moe_topk",
        "moe_top_k", "moe_num_active_experts",
    )  # fmt: skip
    config.pass_over(("experts_per_token", "top_k_experts"))
    return Mlps(
        intermediate=own,
        dense=float(matrices * hidden * dense),
        expert=float(matrices * inner * own),
        shared=float(matrices * hidden * shared + router),
        experts=experts,
        experts_per_token=per_token,
    )


def _shared_width(config: ConfigValues, kind: str, own: int, width: int) -> int:
    """Width of the experts that every token passes, all together."""
    stated = config.count(
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "share_expert_dim",
        "shared_intermediate_size", default=0, least=0,
    )  # fmt: skip
    count = config.count("n_shared_experts", "num_shared_experts", "num_shared_expert", default=0, least=0)
    if stated:
        return stated
    return width if kind.startswith("llama4") else count * own
