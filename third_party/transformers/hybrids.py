"""Hybrids that fuzz.py records: models with mixers, and their random configs."""

TEXT = dict(vocab_size=17, bos_token_id=1, eos_token_id=2, pad_token_id=0)
SIZES = TEXT | dict(
  hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
  num_key_value_heads=1, max_position_embeddings=16,
)  # fmt: skip
ROPES = [
  {"rope_type": "default", "rope_theta": 500.0},
  {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
  {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "rope_theta": 100.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8,
  },
]  # fmt: skip
TIES = dict(tie_word_embeddings=[False, True])


def layers(*kinds):
  """Returns the kind of each layer, for some models."""
  return [[kinds[int(n)] for n in text] for text in ("01", "10", "011", "00110")]


LINEARS = layers("linear_attention", "full_attention")
DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=6)
# They are saved under other names than those of the models' parameters.
SAVED = {"olmo_hybrid"}
FAMILIES = {
  "olmo_hybrid": ("OlmoHybrid", "ForCausalLM", SIZES | DELTA, TIES | dict(
    num_key_value_heads=[1, 2], rms_norm_eps=[1e-6, 0.1], num_hidden_layers=[2, 3, 5],
    rope_parameters=[None, *ROPES], hidden_act=["silu", "silu", "gelu"],
    linear_allow_neg_eigval=[True, False], linear_conv_kernel_dim=[2, 3, 4],
    linear_num_value_heads=[2, 4], linear_value_head_dim=[None, 6],
    linear_key_head_dim=[None, 4], attention_bias=[False, True],
    layer_types=[None, *LINEARS],
  )),
  "lfm2": ("Lfm2", "ForCausalLM", SIZES | dict(block_auto_adjust_ff_dim=False), dict(
    num_key_value_heads=[1, 2], norm_eps=[1e-5, 0.1], num_hidden_layers=[2, 3, 5],
    rope_parameters=[None, *ROPES], conv_bias=[False, True], conv_L_cache=[2, 3, 4],
    block_auto_adjust_ff_dim=[True, False], block_ffn_dim_multiplier=[None, 1.0, 1.7],
    block_multiple_of=[4, 8], full_attn_idxs=[[1], [0], [0, 2, 3]],
    layer_types=[None, *layers("conv", "full_attention")], tie_embedding=[False, True],
  )),
}  # fmt: skip
