"""ConfigValues: a config.json's keys, checked as they are read, and which of them nobody read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from melange.errors import InputError

# Keys that do not change what serving costs: positions, norms, tokens, training, names, files.
_HARMLESS = re.compile(
    r"""(?x)
    .*(token_id|token_index|_eps|epsilon|dropout|_range|_init|initializer.*|_placeholder|_bias|_norm|_std|_type|_cap|
       softcapping|_act|_activation|_func|_method|_loss_coef|_coef|_alpha|_limit|_scale|_scaling_factor|_multiplier)|
    rope.*|.*_rope(_.*)?|.*rope_theta|rotary.*|partial_rotary.*|.*theta.*|original_max.*|initial_context_length|
    architectures|auto_map|model_type|torch_dtype|dtype|transformers_version|_.*|use_cache|pretraining_tp|ep_size|
    hidden_act.*|norm_.*|.*_norm_.*|topk_group|n_group|num_expert_group|scoring_func|output_.*|router_.*|seq_aux|aux_.*|
    .*_lambda|bos.*|eos.*|pad.*|unk.*|sep_.*|mask_.*|is_.*|id2label|label2id|return_.*|tie_.*|torchscript|problem_type|
    chunk_size_feed_forward|pruned_heads|prefix|num_beam.*|num_return.*|top_k|top_p|temperature|typical_p|.*_penalty|
    min_length|max_length|length_.*|do_sample|early_stopping|finetuning_task|.*bad_words.*|tokenizer_class|cross_.*|
    add_cross_attention|remove_invalid_values|tf_.*|use_bfloat16|exponential_decay.*|begin_suppress.*|suppress_.*|
    no_repeat.*|encoder_no.*|decoder_start.*|diversity_.*|use_qk_norm|qk_.*norm.*|qk_layernorm|rms_norm.*|layer_norm.*|
    logit_scale|logits_scaling|.*logit.*|attn_implementation|language|ignore_index|swiglu.*|residual.*|rescale.*|
    time_step.*|mamba_.*bias|use_mamba_kernels|use_conv_bias|use_bias|num_logits_to_keep|mup_.*|.*mup.*|scale_.*|
    num_nextn_predict_layers|use_mtp|mtp_.*|num_mtp_modules|mlp_bias|clip_qkv|query_pre_attn_scalar|embedding_.*|
    .*expert_bias|n_hash.*|resid_pdrop|embd_pdrop|attn_pdrop|use_bidirectional_attention|cache_implementation|
    moe_router.*|moe_renormalize|use_grouped_topk|routed_scaling_factor|use_sliding_window|max_window_layers|
    index_share.*|.*_overlap|indexer_rope.*|chunk_size|boi.*|boa.*|eoi.*|eoa.*|image_.*|video_.*|audio_.*|.*vision_.*token.*|
    num_sink_tokens|final_.*|sliding_window_pattern|mamba_expand|expand|mamba_ssm.*dtype|use_unified_vision_chunk|
    quantization_config|compression_config|attention_value_scale|attention_value|nope_.*|no_rope_layers|
    max_position_embeddings|model_max_length|max_sequence_length|qk_head_dim|layer_types|vocab_size.*|zero_.*|use_.*norm
    """
)


class ConfigValues:
    """The keys of one config.json. Every method reads keys, and :attr:`unread` tells which were left.

    A value of the wrong kind raises InputError naming its key; one that must be there and is not, KeyError.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it stands; ``default`` where it is missing or null."""
        self._read.add(key)
        value = self._config.get(key)
        return default if value is None else value

    def count(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """The first of the keys that is there, a whole number of at least ``least``; KeyError where none is."""
        for key in keys:
            value = self.get(key)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise InputError(f"{key} is {value!r}", fix=f"give a whole number of at least {least}")
                return value
        if default is None:
            raise KeyError(keys[0])
        return default

    def names(self, key: str, layers: int) -> list[Any] | None:
        """A list with an entry a layer; None where it is missing. InputError where it is of another length."""
        value = self.get(key)
        if value is None or value == []:
            return None
        if not isinstance(value, list | str) or len(value) < layers:
            raise InputError(f"{key} does not name each of the {layers} layers", fix="give one entry a layer")
        return list(value)[:layers]

    def pass_over(self, keys: Iterable[str]) -> None:
        """Count keys as understood."""
        self._read |= set(keys)

    @property
    def unread(self) -> tuple[str, ...]:
        """Keys that were neither read nor are known to change no cost; null, false, 0 and empty ones say nothing."""
        left = [key for key, value in self._config.items() if key not in self._read and value]
        return tuple(sorted(key for key in left if not _HARMLESS.fullmatch(key)))
