"""Tokenizers. Importing this package fills the registry `base.tokenizers`."""

from transformer_jax.data.tokenizers import byte as byte
from transformer_jax.data.tokenizers import char as char
from transformer_jax.data.tokenizers import from_run as from_run
from transformer_jax.data.tokenizers import huggingface as huggingface
from transformer_jax.data.tokenizers import subword as subword
from transformer_jax.data.tokenizers import word as word
from transformer_jax.data.tokenizers import wordpiece as wordpiece
from transformer_jax.data.tokenizers.base import BOS as BOS
from transformer_jax.data.tokenizers.base import EOS as EOS
from transformer_jax.data.tokenizers.base import MASK as MASK
from transformer_jax.data.tokenizers.base import PAD as PAD
from transformer_jax.data.tokenizers.base import UNK as UNK
from transformer_jax.data.tokenizers.base import Tokenizer as Tokenizer
from transformer_jax.data.tokenizers.base import load as load
from transformer_jax.data.tokenizers.base import tokenizers as tokenizers
