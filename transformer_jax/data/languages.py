"""Codes and names of languages, as headers and file names write them."""

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
OF_NAME = {name: code for code, names in NAMES.items() for name in names}


def code(name: str) -> str:
  """Returns the code of a language in small letters, without a region: zh of zh-TW."""
  first = name.strip().lower().replace("_", "-").partition("-")[0]
  return OF_NAME.get(first, first)


def words(name: str) -> frozenset[str]:
  """Returns what headers call a language, in small letters."""
  short = code(name)
  return frozenset({name.lower(), short, *NAMES.get(short, ())})
