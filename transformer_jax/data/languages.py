"""Languages: codes, names, scripts without spaces, BLEU tokenizers."""

import re
from collections import Counter
from collections.abc import Iterable

from transformer_jax.data.files import DataError

CODES = frozenset(
  "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu"
  " cv cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he"
  " hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko"
  " kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd"
  " ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se"
  " sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty"
  " ug uk ur uz ve vi vo wa wo xh yi yo yue za zh zu".split()
)
NAMES = {
  "ar": ("ara", "arabic"),
  "bo": ("bod", "tib", "tibetan"),
  "cs": ("ces", "cze", "czech"),
  "da": ("dan", "danish"),
  "de": ("deu", "ger", "german", "deutsch"),
  "dz": ("dzo", "dzongkha"),
  "el": ("ell", "gre", "greek"),
  "en": ("eng", "english"),
  "es": ("spa", "spanish"),
  "et": ("est", "estonian"),
  "fi": ("fin", "finnish"),
  "fr": ("fra", "fre", "french"),
  "he": ("heb", "hebrew"),
  "hi": ("hin", "hindi"),
  "hu": ("hun", "hungarian"),
  "it": ("ita", "italian"),
  "ja": ("jpn", "jp", "japanese"),
  "km": ("khm", "khmer"),
  "ko": ("kor", "kr", "korean"),
  "lo": ("lao",),
  "lt": ("lit", "lithuanian"),
  "lv": ("lav", "latvian"),
  "my": ("mya", "bur", "burmese"),
  "nl": ("nld", "dut", "dutch"),
  "no": ("nor", "norwegian"),
  "pl": ("pol", "polish"),
  "pt": ("por", "portuguese"),
  "ro": ("ron", "rum", "romanian"),
  "ru": ("rus", "russian"),
  "sv": ("swe", "swedish"),
  "th": ("tha", "thai"),
  "tr": ("tur", "turkish"),
  "uk": ("ukr", "ukrainian"),
  "vi": ("vie", "vietnamese"),
  "yue": ("cantonese",),
  "zh": ("zho", "chi", "cmn", "cn", "chinese", "mandarin"),
}
# Scripts without spaces between words, by a language of each.
SCRIPTS = {
  "zh": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f",
  "ja": "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f",
  "th": "\u0e01-\u0e5b",
  "lo": "\u0e81-\u0edf",
  "bo": "\u0f00-\u0fff",
  "my": "\u1000-\u109f",
  "km": "\u1780-\u17ff",
}
SPACELESS = re.compile(f"[{''.join(SCRIPTS.values())}]")
# Those of sacreBLEU that need no other packages; ja-mecab and ko-mecab do.
TOKENIZERS = {"zh": "zh", "yue": "zh", "ko": "char", "dz": "char"}
TOKENIZERS |= {language: "char" for language in SCRIPTS if language != "zh"}
DOWNLOADED = {"spm", "flores101", "flores200", "spBLEU-1K"}
OF_NAME = {name: code for code, names in NAMES.items() for name in names}


def code(name: str) -> str:
  """Returns the code of a language in small letters, without a region: zh of zh-TW."""
  first = name.strip().lower().replace("_", "-").partition("-")[0]
  return OF_NAME.get(first, first)


def bleu_tokenizer(language: str, references: Iterable[str] = ()) -> str:
  """Returns the sacreBLEU tokenizer for a language: 13a for those with spaces.

  For unknown languages, the script of the references decides.
  """
  if code(language) in TOKENIZERS:
    return TOKENIZERS[code(language)]
  text = "".join(references)
  letters = sum(map(str.isalpha, text))
  scripts = {name: len(re.findall(f"[{SCRIPTS[name]}]", text)) for name in SCRIPTS}
  if 2 * sum(scripts.values()) <= letters:
    return "13a"
  # Japanese has Chinese characters too.
  found = Counter(scripts).most_common(1)[0][0]
  japanese = found == "zh" and scripts["ja"] > scripts["zh"] / 10
  return TOKENIZERS["ja" if japanese else found]


def check_bleu_tokenizer(name: str) -> None:
  """Raises DataError unless sacreBLEU can use this tokenizer here and offline."""
  import sacrebleu

  known = [x for x in sacrebleu.BLEU.TOKENIZERS if x not in DOWNLOADED]
  if name not in known:
    raise DataError(
      f"bleu_tokenizer='{name}' is none of sacreBLEU's that need no download:"
      f" {', '.join(known)}; write one of them, or '' for that of the target language"
    )
  try:
    sacrebleu.BLEU(tokenize=name)
  except RuntimeError as error:  # it lacks packages, in four lines
    raise DataError(
      f"bleu_tokenizer='{name}' needs packages that are not installed; pip install"
      f" 'sacrebleu[{name.partition('-')[0]}]', or write 'char'"
    ) from error
