"""Errors for checkpoints that hold only an adapter (LoRA, arXiv:2106.09685)."""

import os
import pathlib

from transformer_jax.interop.checkpoint_files import Tensors

MERGE = (
  "merge it into its model first: peft.AutoPeftModelForCausalLM.from_pretrained("
  "FOLDER).merge_and_unload().save_pretrained(NEW), or the AutoPeftModel of its task,"
  " and read NEW"
)


def refuse_adapter(folder: str | os.PathLike) -> None:
  """Raises ValueError if a folder holds an adapter in place of a model."""
  folder = pathlib.Path(folder)

  def there(name):
    return (folder / name).is_file()

  if there("adapter_config.json") and not there("model.safetensors"):
    if not there("model.safetensors.index.json"):
      raise ValueError(f"{folder} holds a LoRA adapter, not a whole model; {MERGE}")


def refuse_parts(tensors: Tensors) -> None:
  """Raises ValueError if a model's tensors include those of an adapter."""
  parts = [
    n for n in tensors if ".lora_A." in n or ".lora_B." in n or ".base_layer." in n
  ]
  if parts:
    raise ValueError(f"the weights hold a LoRA adapter ({min(parts)}); {MERGE}")
