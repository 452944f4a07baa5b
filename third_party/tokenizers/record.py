"""Records small fast tokenizers of Hugging Face Transformers as huggingface.json.

  python third_party/tokenizers/record.py FOLDER

Needs transformers 5.23.0, which this project does not: run it in an environment of its
own. Vocabularies are trained on TEXTS; each is saved as transformers saves it, and read
again before its tokens are recorded.
"""

import json
import pathlib
import sys
import tempfile

import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, trainers

TRAINING = [
  "The size of the cell is the size of its text, and the text is short.",
  "Größe und Text: die Zelle (rot) ist größer als die anderen Zellen!",
  "A sentence isn't a word; words aren't sentences. They've 12 or 345 letters.",
  "  Two  spaces,\ttabs and\nlines; naïve café, Ångström, 北京 我喜欢散步 今天",
] * 5
TEXTS = [
  *TRAINING[:4],
  "",
  " ",
  "cell",
  " cell",
  "cell ",
  "Cells, cellular: unseen words like zyxwvut!?",
  "a  b   c\n\n d\r\n",
  "𝄞 music, ﬁne ligatures, e\u0301 composed, \u200b zero width, \u00a0 no break",
  "1234567890 3.14 1,000",
  "don't can't we'll I'd",
  "日本語とカタカナ 한국어 ไทย",
  "the text " * 200,
]
# What transformers reads as one token unless it is told to split special tokens.
SPELLED = ["<s> a </s>", "[CLS] text [SEP] [MASK]", "<|endoftext|>the cell<pad>"]


def trained(model, before, trainer, normalizer=None):
  """Returns a tokenizer trained on the texts."""
  made = tokenizers.Tokenizer(model)
  if normalizer:
    made.normalizer = normalizer
  made.pre_tokenizer = before
  made.train_from_iterator(TRAINING, trainer)
  return json.loads(made.to_str())["model"]


def bert():
  special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  trainer = trainers.WordPieceTrainer(
    vocab_size=160, special_tokens=special, show_progress=False
  )
  model = models.WordPiece(unk_token="[UNK]")
  before = pre_tokenizers.BertPreTokenizer()
  found = trained(model, before, trainer, normalizers.BertNormalizer(lowercase=True))
  return transformers.BertTokenizer(vocab=found["vocab"])


def gpt2():
  trainer = trainers.BpeTrainer(
    vocab_size=330,
    special_tokens=["<|endoftext|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  before = pre_tokenizers.ByteLevel(add_prefix_space=False)
  found = trained(models.BPE(), before, trainer)
  merges = [tuple(pair) for pair in found["merges"]]
  return transformers.GPT2Tokenizer(vocab=found["vocab"], merges=merges)


def llama():
  special = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
  trainer = trainers.BpeTrainer(
    vocab_size=400, special_tokens=special, show_progress=False
  )
  before = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
  found = trained(models.BPE(unk_token="<unk>"), before, trainer)
  merges = [tuple(pair) for pair in found["merges"]]
  return transformers.LlamaTokenizer(vocab=found["vocab"], merges=merges)


def t5():
  special = ["<pad>", "</s>", "<unk>"]
  trainer = trainers.UnigramTrainer(
    vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
  )
  before = pre_tokenizers.Metaspace(prepend_scheme="always")
  found = trained(models.Unigram(), before, trainer)
  vocab = [tuple(item) for item in found["vocab"]]
  return transformers.T5Tokenizer(vocab=vocab, extra_ids=3)


def roberta():
  made = gpt2()
  found = json.loads(made.backend_tokenizer.to_str())["model"]
  vocab = ["<s>", "<pad>", "</s>", "<unk>", *found["vocab"], "<mask>"]
  merges = [tuple(pair) for pair in found["merges"]]
  vocab = {piece: n for n, piece in enumerate(vocab) if piece != "<|endoftext|>"}
  vocab = {piece: n for n, piece in enumerate(vocab)}
  return transformers.RobertaTokenizer(vocab=vocab, merges=merges)


def record(make):
  """Returns the files that transformers writes, and the tokens of all texts."""
  with tempfile.TemporaryDirectory() as folder:
    made = make()
    if make is bert:  # as folders of sentence-transformers have it
      made.backend_tokenizer.enable_truncation(16)
      made.backend_tokenizer.enable_padding(length=16)
    made.save_pretrained(folder)
    if make is bert:
      made.backend_tokenizer.save(f"{folder}/tokenizer.json")
    read = transformers.AutoTokenizer.from_pretrained(folder)
    files = ("tokenizer.json", "tokenizer_config.json")
    kept = {x: json.loads(pathlib.Path(folder, x).read_text()) for x in files}
  plain = lambda text, **more: read(text, add_special_tokens=False, **more)["input_ids"]
  said = {name: getattr(read, f"{name}_token_id", None) for name in ROLES}
  return kept | {
    "tokens": [plain(text) for text in TEXTS],
    "split": [plain(text, split_special_tokens=True) for text in SPELLED],
    "decoded": [read.decode(plain(text), **DECODE) for text in TEXTS],
    "framed": read("The text")["input_ids"],
    "special": said,
    "size": len(read),
  }


ROLES = "bos", "eos", "cls", "sep", "mask", "pad", "unk"
DECODE = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}

if __name__ == "__main__":
  cases = {make.__name__: record(make) for make in (bert, gpt2, llama, t5, roberta)}
  found = {"texts": TEXTS, "spelled": SPELLED, "cases": cases}
  path = pathlib.Path(sys.argv[1], "huggingface.json")
  path.write_text(json.dumps(found, ensure_ascii=True, separators=(",", ":")))
  print(path, path.stat().st_size)
