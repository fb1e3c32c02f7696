"""What one token, one sequence and one iteration of a model amount to: parameters, FLOP, bytes."""

from __future__ import annotations

from melange.catalog.models import Model
from melange.catalog.precisions import BYTES_PER_PARAMETER, EXPERTS_ONLY, FULL_PRECISIONS

# Work of sparse attention's indexer on a token, relative to attending to it: DeepSeek-V3.2 reads 128 of 704 elements in
# half their width, and multiplies 64 heads of 128 in fp8 where attention has 128 of 320 in bf16.
INDEX_SHARE = 1 / 8


def embedding_parameters(model: Model) -> float:
    """Parameters of the input embedding, and of the output layer."""
    return float(model.vocabulary * model.hidden)


def expert_parameters(model: Model) -> float:
    """Parameters inside experts: solves total = shared + all experts, active = shared + the share that a token uses."""
    if model.experts == 1:
        return 0.0
    return (model.parameters - model.active_parameters) / (1.0 - model.experts_per_token / model.experts)


def dense_layer_parameters(model: Model) -> float:
    """Parameters of all layers that every token passes: neither embeddings, output layer nor routed experts."""
    embeddings = embedding_parameters(model) * (1 if model.tied_embeddings else 2)
    return model.parameters - expert_parameters(model) - embeddings


def layer_parameters(model: Model) -> float:
    """Parameters that one token is multiplied with, embeddings and output layer left out."""
    return model.active_parameters - embedding_parameters(model) * (1 if model.tied_embeddings else 2)


def dense_bytes(model: Model, precision: str) -> float:
    """Bytes a parameter of what is neither embedding nor routed expert."""
    return 2.0 if precision in EXPERTS_ONLY and model.experts > 1 else BYTES_PER_PARAMETER[precision]


def dense_precision(model: Model, precision: str) -> str:
    """The precision of what is neither embedding nor routed expert."""
    return "bf16" if precision in EXPERTS_ONLY and model.experts > 1 else precision


def weights_bytes(model: Model, precision: str) -> float:
    """Bytes of the whole model.

    Quantised precisions keep embeddings and the output layer at 16 bits, as engines do; 4-bit floats keep all of a
    mixture but its experts.
    """
    embeddings = embedding_parameters(model) * (1 if model.tied_embeddings else 2)
    kept = 2.0 if precision not in FULL_PRECISIONS else BYTES_PER_PARAMETER[precision]
    inner = dense_bytes(model, precision) * dense_layer_parameters(model)
    return inner + expert_parameters(model) * BYTES_PER_PARAMETER[precision] + embeddings * kept


def pair_flop(model: Model) -> float:
    """FLOP of one (query, key) pair over all heads and all layers that keep every token."""
    every = 2.0 * model.heads * (model.head_size + model.value_size) * model.growing_layers
    return every * INDEX_SHARE if model.attended_tokens else every


def latent_flop(model: Model) -> float:
    """FLOP of one query and one cached token in latent space, over all heads and layers that keep every token."""
    return 4.0 * model.heads * model.kv_latent_elements * model.growing_layers


def activation_bytes(model: Model, tp: int) -> float:
    """Bytes that one token's activations move on one GPU: every operation reads its input and writes its output once.

    Per layer, in hidden sizes: two norms with residuals 8, query and rotation 3, attention 2, output projection 2, MLP
    input and output 2 (norms and outputs whole on every GPU, the rest split); key and value 9 of their own width;
    gate, up and product 6 of the intermediate size.
    """
    whole = 12.0 * model.hidden
    split = 5.0 * model.hidden + 9.0 * model.kv_hidden + 6.0 * model.intermediate * model.experts_per_token
    return 2.0 * model.layers * (whole + split / tp)
