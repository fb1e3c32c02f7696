"""Model: the shape of a decoder, as far as serving cost depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.precisions import BYTES_PER_PARAMETER, PRECISIONS
from melange.errors import InputError

_POSITIVE = ("parameters", "layers", "hidden", "heads", "kv_heads", "head_size", "intermediate", "vocabulary")
_COUNTS = ("window_layers", "window_tokens", "linear_layers", "plain_layers", "expert_layers", "kv_latent_elements")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder's shape. ``parameters`` counts all weights, ``active_parameters`` those one token uses.

    ``precision`` is that of the published checkpoint. ``intermediate`` is the width of an MLP; of a mixture, that of
    one expert. ``expert_layers`` of the layers hold experts (0: all of a mixture's).

    Layers keep what later tokens attend to in one of four ways. Of ``layers``, ``window_layers`` keep keys and values
    of the last ``window_tokens`` tokens only, ``linear_layers`` a state that does not grow (``state_bytes`` a sequence,
    of all of them), ``plain_layers`` nothing (they are an MLP alone); all the others keep every token. A layer's token
    takes ``kv_latent_elements`` where latent attention is used (MLA: one latent vector for all heads, not divided among
    GPUs), else ``2 * kv_heads * head_size``. In window layers it takes ``window_kv_elements`` (0: the same).
    ``attended_tokens`` is what sparse attention picks of a long context (0: all of it).
    ``value_head_size`` is a value's width where it differs from a query's (0: the same).
    ``unread`` names the keys of its config.json that change what it costs and were not understood.
    """

    name: str
    parameters: float
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    active_parameters: float = 0.0
    experts: int = 1
    experts_per_token: int = 1
    expert_layers: int = 0
    window_layers: int = 0
    window_tokens: int = 0
    window_kv_elements: float = 0.0
    linear_layers: int = 0
    state_bytes: float = 0.0
    plain_layers: int = 0
    kv_latent_elements: int = 0
    attended_tokens: int = 0
    value_head_size: int = 0
    max_context_tokens: int = 4096
    tied_embeddings: bool = False
    precision: str = "fp16"
    unread: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise InputError(f"model {self.name}: {name} is {getattr(self, name)}", fix="give a positive figure")
        for name in (*_COUNTS, "attended_tokens", "value_head_size", "state_bytes", "window_kv_elements"):
            if not getattr(self, name) >= 0:
                raise InputError(f"model {self.name}: {name} is {getattr(self, name)}", fix="give 0 or more")
        if self.precision not in PRECISIONS:
            raise InputError(
                f"model {self.name}: precision is {self.precision!r}", fix=f"use one of {', '.join(PRECISIONS)}"
            )
        if self.heads % self.kv_heads:
            raise InputError(
                f"model {self.name}: {self.heads} heads do not divide into {self.kv_heads} KV heads",
                fix="heads must be a multiple of kv_heads",
            )
        if not 1 <= self.experts_per_token <= self.experts:
            raise InputError(
                f"model {self.name}: {self.experts_per_token} of {self.experts} experts a token",
                fix="experts_per_token lies between 1 and experts",
            )
        self._check_layers()
        if self.active_parameters < 0:
            raise InputError(
                f"model {self.name}: active_parameters is {self.active_parameters}", fix="give a positive figure"
            )
        if not self.active_parameters:
            object.__setattr__(self, "active_parameters", self.parameters)
        if self.active_parameters > self.parameters:
            raise InputError(f"model {self.name}: active_parameters exceed parameters", fix="check the two figures")
        object.__setattr__(self, "unread", tuple(self.unread))

    def _check_layers(self) -> None:
        if self.kept_layers + self.window_layers < 1 or self.kept_layers < 0:
            raise InputError(
                f"model {self.name}: no layer of {self.layers} keeps keys and values",
                fix="check window_layers, linear_layers and plain_layers",
            )
        if bool(self.window_layers) != bool(self.window_tokens):
            raise InputError(
                f"model {self.name}: {self.window_layers} window layers of {self.window_tokens} tokens",
                fix="give both window_layers and window_tokens, or neither",
            )
        if self.expert_layers > self.layers or (self.expert_layers and self.experts == 1):
            raise InputError(
                f"model {self.name}: expert_layers is {self.expert_layers}", fix="give as many as hold experts"
            )

    @property
    def kept_layers(self) -> int:
        """Layers that keep every token."""
        return self.layers - self.window_layers - self.linear_layers - self.plain_layers

    @property
    def growing_layers(self) -> int:
        """Layers whose KV cache is counted as growing with every token.

        Those that keep every token; where there are none, the window layers, counted as if they kept all.
        """
        return self.kept_layers or self.window_layers

    @property
    def bounded_layers(self) -> int:
        """Window layers beside others that keep every token."""
        return self.window_layers if self.kept_layers else 0

    @property
    def attention_layers(self) -> int:
        """Layers in which a token attends to others, whole context or window."""
        return self.kept_layers + self.window_layers

    @property
    def sparse_layers(self) -> int:
        """Layers that hold experts."""
        return self.expert_layers or (self.layers if self.experts > 1 else 0)

    @property
    def kv_hidden(self) -> int:
        """Width of one token's keys (or values) in one layer."""
        return self.kv_heads * self.head_size

    @property
    def kv_elements(self) -> float:
        """Elements that one token keeps in one layer that keeps every token, over all KV heads."""
        return float(self.kv_latent_elements or self.kv_heads * (self.head_size + self.value_size))

    @property
    def value_size(self) -> int:
        """Width of a head's value."""
        return self.value_head_size or self.head_size

    def kv_bytes_per_token(self, bytes_per_element: float = 2.0) -> float:
        """Bytes of KV cache that a token holds as long as none is dropped, all layers (kappa in the NanoFlow paper)."""
        window = (self.window_kv_elements or self.kv_elements) * self.bounded_layers
        return (self.kv_elements * self.growing_layers + window) * bytes_per_element

    def weight_bytes(self, precision: str) -> float:
        return self.parameters * BYTES_PER_PARAMETER[precision]
