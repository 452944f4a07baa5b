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
HALF = {"partial_rotary_factor": 0.5}
TIES = dict(tie_word_embeddings=[False, True])


def layers(*kinds):
  """Returns the kind of each layer, for some models."""
  return [[kinds[int(n)] for n in text] for text in ("01", "10", "011", "00110")]


LINEARS = layers("linear_attention", "full_attention")
DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=6)
MAMBA = dict(
  hidden_size=16, num_hidden_layers=2, num_heads=4, head_dim=8, state_size=6, n_groups=2
)
# Its code computes 1 - a^2 of decays a near 1, of which float32 keeps four digits.
DOUBLE = {"RecurrentGemma"}
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
  "recurrent_gemma": ("RecurrentGemma", "ForCausalLM", {
    word: x for word, x in SIZES.items() if word != "max_position_embeddings"
  } | dict(
    attention_window_size=3, intermediate_size=20,
    block_types=["recurrent", "attention"],
  ), TIES | dict(
    num_key_value_heads=[1, 2, None], rms_norm_eps=[1e-6, 0.1], lru_width=[8, 16, 24],
    num_hidden_layers=[2, 3, 5], conv1d_width=[2, 3, 4], attention_bias=[False, True],
    rope_parameters=[None, *(words | HALF for words in ROPES)],
    hidden_activation=["gelu_pytorch_tanh", "gelu_new", "silu"],
    block_types=[["attention", "recurrent"], ["attention"]],
    logits_soft_cap=[1.0, 30.0], attention_window_size=[2, 2048],
  )),
  "mamba2": ("Mamba2", "ForCausalLM", TEXT | MAMBA, TIES | dict(
    n_groups=[1, 2, 4], state_size=[4, 6], conv_kernel=[2, 3, 4],
    use_bias=[False, True], use_conv_bias=[True, False], num_hidden_layers=[1, 2],
    layer_norm_epsilon=[1e-5, 0.1], hidden_act=["silu", "silu", "gelu"],
    time_step_limit=[[0.0, 0.5], [0.3, 1.0], [0.2, float("inf")]],
    residual_in_fp32=[True, False], chunk_size=[2, 256], num_heads=[4, 8],
  )),
}  # fmt: skip
