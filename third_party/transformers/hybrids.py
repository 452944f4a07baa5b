"""Models of layers of several kinds that fuzz.py records: their random configs."""

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
# Their convolutions are saved in equal parts, whatever the width of each.
SAVED = {"olmo_hybrid"}
# Its code computes 1 - a^2 of decays a near 1, of which float32 keeps four digits.
DOUBLE = {"RecurrentGemma"}
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
  "granitemoehybrid": ("GraniteMoeHybrid", "ForCausalLM", SIZES | dict(
    mamba_n_heads=4, mamba_d_head=8, mamba_d_state=6, shared_intermediate_size=12,
    num_local_experts=0, layer_types=["mamba", "attention"], attention_multiplier=0.3,
  ), TIES | dict(
    embedding_multiplier=[1.0, 3.0], logits_scaling=[1.0, 2.0],
    residual_multiplier=[1.0, 0.6], attention_multiplier=[0.1, 0.5],
    num_local_experts=[0, 4], num_experts_per_tok=[2], mamba_n_groups=[1, 2],
    position_embedding_type=[None, "nope", "rope"], rope_parameters=[None, *ROPES],
    layer_types=[["attention", "mamba"], ["linear_attention", "full_attention"]],
    mamba_d_head=["auto", 8], mamba_d_conv=[2, 4], mamba_conv_bias=[True, False],
    mamba_proj_bias=[False, True], time_step_limit=[[0.0, 0.5], [0.3, 1.0]],
    rms_norm_eps=[1e-6, 0.1], hidden_act=["silu", "silu", "gelu"],
    attention_bias=[False, True], num_key_value_heads=[1, 2],
  )),
  "kimi_linear": ("KimiLinear", "ForCausalLM", SIZES | dict(
    num_key_value_heads=2, moe_intermediate_size=8, kv_lora_rank=10, v_head_dim=6,
    qk_rope_head_dim=4, qk_nope_head_dim=8, num_experts_per_tok=2, num_local_experts=4,
    linear_head_dim=6, linear_num_heads=2, mlp_layer_types=["sparse", "dense"],
    layer_types=["linear_attention", "full_attention"],
  ), TIES | dict(
    n_shared_experts=[1, 2], routed_scaling_factor=[1.0, 2.5], q_lora_rank=[None, 6],
    norm_topk_prob=[True, False], n_group=[1, 2], topk_group=[1],
    num_experts_per_tok=[1, 2], rms_norm_eps=[1e-5, 0.1], linear_head_dim=[4, 8],
    linear_num_heads=[1, 3], linear_conv_kernel_dim=[2, 3, 4],
    layer_types=[None, *LINEARS[:2]], mlp_layer_types=[None, ["dense", "sparse"]],
    hidden_act=["silu", "silu", "gelu"], attention_bias=[False, True],
  )),
  "qwen3_next": ("Qwen3Next", "ForCausalLM", SIZES | dict(
    head_dim=8, linear_key_head_dim=6, linear_value_head_dim=8, linear_num_key_heads=2,
    linear_num_value_heads=4, moe_intermediate_size=8, num_experts_per_tok=2,
    shared_expert_intermediate_size=12, num_experts=4, mlp_only_layers=[0],
    layer_types=["linear_attention", "full_attention"],
  ), TIES | dict(
    head_dim=[8, 16], linear_key_head_dim=[4, 8], linear_num_key_heads=[1, 2, 4],
    linear_num_value_heads=[4], num_experts_per_tok=[1, 2], mlp_only_layers=[[], [1]],
    decoder_sparse_step=[1, 2], norm_topk_prob=[True, False], rms_norm_eps=[1e-6, 0.1],
    attention_bias=[False, True], layer_types=[None, *LINEARS[:2]],
    rope_parameters=[None, *(words | HALF for words in ROPES)],
    hidden_act=["silu", "silu", "gelu"], num_key_value_heads=[1, 2],
    linear_conv_kernel_dim=[2, 3], num_hidden_layers=[2, 4],
  )),
  "gemma3n_text": ("Gemma3nText", "ForCausalLM", SIZES | dict(
    head_dim=8, sliding_window=3, num_hidden_layers=4, laurel_rank=5,
    vocab_size_per_layer_input=17, hidden_size_per_layer_input=6, altup_num_inputs=3,
    num_kv_shared_layers=2, activation_sparsity_pattern=[0.8, 0.0, 0.0, 0.5],
    layer_types=["sliding_attention", "full_attention"] * 2,
  ), TIES | dict(
    head_dim=[4, 8], attention_bias=[False, True], rms_norm_eps=[1e-6, 0.1],
    hidden_activation=["gelu_pytorch_tanh", "silu"], sliding_window=[2, 4],
    final_logit_softcapping=[2.0, 30.0], num_kv_shared_layers=[0, 1, 2],
    layer_types=[["full_attention", "sliding_attention"] * 2],
    altup_num_inputs=[2, 4], altup_active_idx=[0, 1], altup_coef_clip=[0.1],
    altup_correct_scale=[True, False], laurel_rank=[1, 3],
    vocab_size_per_layer_input=[8, 17], hidden_size_per_layer_input=[4, 8],
    activation_sparsity_pattern=[None, [0.95] * 4, [0.0, 0.3, 0.0, 0.3]],
    intermediate_size=[[20] * 4, [20, 24, 20, 20]],
    rope_parameters=[None, *(
      {"full_attention": words, "sliding_attention": {
        "rope_type": "default", "rope_theta": 50.0,
      }} for words in ROPES
    )],
  )),
}  # fmt: skip
# Classes besides those that write.
CLASSES = dict.fromkeys(FAMILIES, ["Model"]) | {
  "qwen3_next": ["ForSequenceClassification", "ForTokenClassification", "Model"],
  "gemma3n_text": ["Model"],
}  # fmt: skip
