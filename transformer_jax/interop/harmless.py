"""Keys of config.json that change no output of a model, with the reason.

Any other key that a family does not read raises: see `HFConfig.check_read`. Add a key
here only after reading HuggingFace's code of the models that have it.
"""

REASONS = {
  "names, versions and code of others": """
    _name_or_path name_or_path model_type architectures transformers_version auto_map
    tokenizer_class tokenizer_name finetuning_task task_specific_params custom_pipelines
    _commit_hash adapter_path unsloth_version unsloth_fixed language prefix
    transformers.js_config is_llama_config
  """,
  "how numbers are stored or computed, not what they are": """
    dtype torch_dtype use_cache cache_implementation chunk_size_feed_forward torchscript
    use_bfloat16 pretraining_tp slow_but_exact attention_softmax_in_fp32
    masked_softmax_fusion bias_dropout_fusion reorder_and_upcast_attn
    gradient_checkpointing attn_impl _attn_implementation _attn_implementation_autoset
    attn_implementation init_device use_flash_attention_2 use_flash_attn
  """,
  "training alone: dropout, the first weights, losses": """
    attention_dropout attention_probs_dropout_prob hidden_dropout hidden_dropout_prob
    activation_dropout classifier_dropout classif_dropout dropout dropout_rate
    embed_dropout resid_dropout resid_pdrop embd_pdrop attn_pdrop emb_pdrop
    pooler_dropout cls_dropout qa_dropout seq_classif_dropout summary_first_dropout
    encoder_layerdrop decoder_layerdrop layerdrop initializer_range initializer_factor
    init_std init_config sinusoidal_pos_embds embedding_fraction problem_type
    skip_bias_add skip_bias_add_qkv verbose
  """,
  "what else a call returns": """
    output_attentions output_hidden_states output_past return_dict use_return_dict
  """,
  "names of classes": """
    id2label label2id num_labels _num_labels
  """,
  "how text is generated": """
    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id
    length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_scores remove_invalid_values repetition_penalty
    return_dict_in_generate suppress_tokens temperature top_k top_p typical_p
    force_bos_token_to_be_generated
  """,
  "which tokens have a special use": """
    bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id
    unk_token_id decoder_start_token_id
  """,
  "which stack a class has, which its tensors say too": """
    is_decoder is_encoder_decoder
  """,
  "lengths of training texts, which bound nothing here": """
    n_ctx seq_length max_sequence_length
  """,
  "poolers and summaries, which are read by no output but those of classes": """
    pooler_hidden_size pooler_hidden_act pooler_output_size pooler_act pooler_fc_size
    pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    directionality summary_type summary_use_proj summary_activation
    summary_proj_to_labels
  """,
}
HARMLESS = {word for words in REASONS.values() for word in words.split()}
