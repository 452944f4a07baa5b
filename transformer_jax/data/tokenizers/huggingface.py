"""Tokenizer from a tokenizer.json of HuggingFace's `tokenizers` library.

Read by the library that defines the format, https://github.com/huggingface/tokenizers,
from a file alone: no name is looked up on a hub.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any, ClassVar

from transformer_jax.data import files
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import base
from transformer_jax.data.tokenizers.base import Tokenizer, tokenizers

NAME = "tokenizer.json"
CONFIG = "tokenizer_config.json"  # beside it: start and end tokens of a text
COPY = "huggingface.json"  # the same file, with a run
# Keys of CONFIG, the first present one counts; then usual spellings.
ROLES = {
  "bos_token": ("cls_token", "bos_token"),
  "eos_token": ("sep_token", "eos_token"),
  "mask_token": ("mask_token",),
}
USUAL = {
  "bos_token": ("[CLS]", "<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"),
  "eos_token": ("[SEP]", "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
  "mask_token": ("[MASK]", "<mask>"),
}


@tokenizers.register("huggingface")
@dataclasses.dataclass(frozen=True)
class HuggingFace(Tokenizer):
  """Tokenizer of a HuggingFace tokenizer.json; no training.

  Tokens are those of transformers' fast tokenizers without special ones; truncation and
  padding of the file are ignored. A special token spelled in a text is read as text
  (`split_special_tokens=True` in transformers), so a text cannot end itself.

  file   tokenizer.json, or its folder
  size   vocabulary size of the model; 0: that of the file
  bos_token, eos_token, mask_token
         start, end and mask token; '': cls_token or
         bos_token, sep_token or eos_token, and mask_token of the tokenizer_config.json
         beside it, or one of the usual names

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> import tempfile
  >>> from tokenizers import Tokenizer as Fast, models
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   fast = Fast(models.WordLevel({"<s>": 0, "hello": 1, "?": 2}, "?"))
  ...   fast.save(f"{folder}/tokenizer.json")
  ...   tokenizer = HuggingFace(folder).train([])
  >>> tokenizer.encode("hello"), tokenizer.start
  ([1], 0)
  """

  file: str = ""
  size: int = 0
  bos_token: str = ""
  eos_token: str = ""
  mask_token: str = ""
  model: str = dataclasses.field(default="", kw_only=True, repr=False)

  name: ClassVar[str] = "huggingface"

  @property
  def vocabulary(self) -> int:
    have = len(self._pieces)
    if self.size and self.size < have:
      raise DataError(
        f"huggingface: '{self.file}' has {have} tokens and size is {self.size}; write"
        f" size={have} or more, or leave it out"
      )
    return self.size or have

  @property
  def special(self) -> tuple[str, ...]:
    """Special tokens at the start of the vocabulary: none."""
    return ()

  @property
  def start(self) -> int:
    return self._number("bos_token")

  @property
  def end(self) -> int:
    return self._number("eos_token")

  @property
  def mask(self) -> int:
    return self._number("mask_token")

  @property
  def fingerprint(self) -> str:
    """The SHA-256 of the file without its truncation and padding."""
    settings = json.dumps([self.name, self._content])
    return hashlib.sha256(settings.encode()).hexdigest()

  @property
  def recipe(self) -> str:
    import tokenizers as library

    roles = [self._role(role) for role in ROLES]
    return self._recipe(1, library.__version__, self.fingerprint, roles)

  def train(self, texts: Iterable[str] = ()) -> "HuggingFace":
    """Returns the tokenizer of the file; texts are ignored."""
    roles: dict[str, Any] = {role: self._role(role) for role in ROLES}
    return dataclasses.replace(self, pieces=self._pieces, model=self._content, **roles)

  def encode(self, text: str) -> list[int]:
    tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
    special, unknown = self._special
    if special.isdisjoint(tokens):
      return tokens
    # Unigram vocabularies have special tokens among their pieces.
    read = (unknown if n in special else n for n in tokens)
    return [n for n in read if n is not None]

  def decode(self, tokens: Iterable[int]) -> str:
    special, _ = self._special
    room = len(self._pieces)
    shown = [int(n) for n in tokens if 0 <= n < room and n not in special]
    return self._tokenizer.decode(shown, skip_special_tokens=False)

  @functools.cached_property
  def _content(self) -> str:
    return self.model or _read(self.file)

  @property
  def _tokenizer(self) -> Any:
    return _open(self._content, self.file)

  @functools.cached_property
  def _pieces(self) -> tuple[str, ...]:
    """All tokens in order; unused numbers have placeholder names."""
    named = {n: piece for piece, n in self._tokenizer.get_vocab().items()}
    return tuple(named.get(n, f"<none_{n}>") for n in range(max(named) + 1))

  @functools.cached_property
  def _special(self) -> tuple[frozenset[int], int | None]:
    """Special tokens but the unknown one, and that one."""
    added = self._tokenizer.get_added_tokens_decoder()
    special = {n for n, token in added.items() if token.special}
    model = json.loads(self._content)["model"]
    unknown = model.get("unk_token")
    number = model.get("unk_id") if unknown is None else self._find(unknown)
    return frozenset(special - {number}), number

  def _find(self, piece: str) -> int | None:
    return self._tokenizer.token_to_id(piece)

  def _role(self, role: str) -> str:
    """Returns the token of a role, '' if there is none."""
    if mine := getattr(self, role):
      return mine
    settings = _config(self.file) if self.file and not self.model else {}
    named = [settings.get(key) for key in ROLES[role]]
    named = [x.get("content") if isinstance(x, dict) else x for x in named]
    every = (*named, *USUAL[role])
    return next((x for x in every if x and self._find(x) is not None), "")

  def _number(self, role: str) -> int:
    piece = self._role(role)
    number = self._find(piece) if piece else None
    if number is None:
      what = f"no token '{piece}'" if piece else f"no {role} that is known"
      raise DataError(
        f"'{self.file}' has {what}; write huggingface('{self.file}', {role}='...') with"
        " one of its tokens"
      )
    return number

  def _arguments(self) -> dict:
    return {k: v for k, v in super()._arguments().items() if k != "model"}

  def _save_more(self, folder: pathlib.Path) -> None:
    (folder / COPY).write_text(self._content, encoding="utf-8")

  def _load_more(self, folder: pathlib.Path) -> "HuggingFace":
    content = (folder / COPY).read_text(encoding="utf-8")
    return dataclasses.replace(self, model=content)


@functools.lru_cache(maxsize=4)
def _read(file: str) -> str:
  """Returns a tokenizer.json without truncation and padding."""
  if not file:
    raise DataError("huggingface: name a tokenizer.json, as in huggingface('t5/')")
  path = _path(file)
  settings = _json(path)
  if "pieces" in settings and "fingerprint" in settings:
    raise DataError(
      f"'{path}' is the vocabulary of a run; write kept('{path.parent.parent}')"
    )
  if not isinstance(settings.get("model"), dict):
    raise DataError(f"'{path}' is no tokenizer.json: it has no 'model'; copy it again")
  content = json.dumps(settings | {"truncation": None, "padding": None}, sort_keys=True)
  _open(content, file)
  return content


def _path(file: str) -> pathlib.Path:
  path = pathlib.Path(file).expanduser()
  return path / NAME if path.is_dir() else path


def _json(path: pathlib.Path) -> dict[str, Any]:
  content = files.content_of(path)
  files.check_utf8(content, f"'{path}'")
  try:
    settings = json.loads(content)
  except ValueError as error:
    raise DataError(f"'{path}' is not JSON ({error}); copy it again") from error
  if not isinstance(settings, dict):
    raise DataError(f"'{path}' is no tokenizer: it holds no object; copy it again")
  return settings


@functools.lru_cache(maxsize=4)
def _config(file: str) -> dict[str, Any]:
  path = _path(file).with_name(CONFIG)
  return _json(path) if path.exists() else {}


@functools.lru_cache(maxsize=4)
def _open(content: str, file: str) -> Any:
  """Returns the tokenizer of HuggingFace's library."""
  import tokenizers as library

  try:
    made = library.Tokenizer.from_str(content)
  except Exception as error:  # the library raises no narrower type
    why = str(error).partition("\n")[0]
    raise DataError(
      f"'{file}' cannot be read by tokenizers {library.__version__} ({why}); copy it"
      " again, or install a newer version"
    ) from error
  made.encode_special_tokens = True
  return made


def same_words(folder: pathlib.Path, other: Tokenizer) -> bool:
  """Returns whether another tokenizer has the tokens of a folder's tokenizer.json."""
  return HuggingFace(str(folder))._pieces == tuple(base.trained(other))
