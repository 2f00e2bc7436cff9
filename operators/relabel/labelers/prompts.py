"""Prompts: templates whose words are fixed and whose data stays data.

A template is Jinja2 with names, conditions and a few filters: no loops, no calls, no arithmetic, so that it ends at
once and its length is known. What is filled in comes from a data set, is not trusted, and goes through `as_data`.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ..digests import sha256
from ..errors import UsageError

MAX_TEMPLATE = 8192
"""Characters of a template."""
MAX_PROMPT = 65_536
"""Characters of a filled prompt: templates are short and data are capped, so that only a mistake is longer."""
ELLIPSIS = "…"

NODES = frozenset(
    {
        "Template", "Output", "TemplateData", "Name", "Const", "If", "CondExpr", "Filter", "Test", "Compare", "Operand",
        "And", "Or", "Not", "Concat",
    }
)  # fmt: skip
"""What a template may be made of, by Jinja2's names."""
FILTERS = frozenset({"lower", "upper", "title", "capitalize", "trim", "truncate", "default", "length", "wordcount"})

LOOK_ALIKES = str.maketrans(
    {"<": "‹", ">": "›", "{": "(", "}": ")", "[": "(", "]": ")", "|": "/", "`": "'", '"': "'", "\\": "/", "▁": "_"}
)
"""Chat templates, tokenizers and Jinja2 write their own marks with these; a caption does not need them."""
HEADINGS = re.compile(r"#{2,}")
ROLES = re.compile(r"\b(system|user|assistant|human|model|developer|tool|instruction|response)\s*:", re.IGNORECASE)
"""What turns are called in prompts that are plain text."""
CUES = re.compile(r"^[ \t]*(\w[\w ]{0,40}?)\s*:", re.MULTILINE)
"""The words before the first colon of a line."""
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories of what nobody sees: controls, overrides of direction, surrogates, private characters."""
JOINERS = "\u200c\u200d\u200e\u200f"
"""Invisible, but part of how Persian, Hindi, Hebrew and many emoji are written."""
STRAY_JOINERS = re.compile(rf"(?<=[\x00-\x7f])[{JOINERS}]+|[{JOINERS}]+(?=[\x00-\x7f])")
"""Beside ASCII they only hide a mark (`system`, a joiner, `:`)."""


def as_data(text: str, max_chars: int, cues: re.Pattern[str] | None = None) -> str:
    """A text of a data set as one line that can be nothing but text, at most `max_chars` characters long.

    Compatibility forms are folded (a full-width `＜` is a `<`), invisible characters and line breaks become spaces;
    brackets, bars and quotes with which a prompt could be left, headings, and the colon after a role's name
    (`system:`) are replaced by characters that mean nothing to a chat template. So is the one after `cues` (`cues_of`).
    """
    line = without_cues(as_line(text[: 8 * max_chars]), cues)
    if len(line) <= max_chars:
        return line
    cut = line[: max_chars - 1]
    ends_a_word = line[max_chars - 1] == " "
    return (cut if ends_a_word else cut.rpartition(" ")[0] or cut).rstrip() + ELLIPSIS


def as_line(text: str) -> str:
    """As `as_data`, of any length."""
    folded = unicodedata.normalize("NFKC", text)
    seen = "".join(" " if is_hidden(character) else character for character in folded)
    shown = STRAY_JOINERS.sub("", seen)
    plain = HEADINGS.sub("#", ROLES.sub(r"\1 -", shown.translate(LOOK_ALIKES)))
    return " ".join(plain.split())


def cues_of(fixed: Iterable[str]) -> re.Pattern[str] | None:
    """What finds a prompt's own cues (a line's beginning before a colon, `Topic:`) in a text; None where it has none.

    A text that holds them could pretend to be the next example; with a dash for the colon it cannot.
    """
    found = {" ".join(cue.split()) for piece in fixed for cue in CUES.findall(piece)}
    words = "|".join(map(re.escape, sorted(found, key=lambda cue: (-len(cue), cue))))
    return re.compile(rf"\b({words})\s*:", re.IGNORECASE) if found else None


def without_cues(line: str, cues: re.Pattern[str] | None) -> str:
    """With a dash for the colon after every cue."""
    return cues.sub(r"\1 -", line) if cues else line


def is_hidden(character: str) -> bool:
    """Whether nobody sees it and no script needs it."""
    return unicodedata.category(character) in HIDDEN and character not in JOINERS


class Template:
    """A checked template; raises UsageError where it is none, or speaks of what it will not be given."""

    def __init__(self, source: str, names: Iterable[str]) -> None:
        self.source, self.names = source, frozenset(names)
        if len(source) > MAX_TEMPLATE:
            raise UsageError(f"a prompt has at most {MAX_TEMPLATE} characters, got {len(source)}.")
        self._compiled = compiled(source)
        for name in sorted(spoken_of(source) - self.names):
            near = difflib.get_close_matches(name, self.names, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"it may use: {', '.join(sorted(self.names)) or 'none'}."
            raise UsageError(f"the prompt speaks of {name!r}, which it is not given; {known}")
        self.fill(dict.fromkeys(self.names, "x"))
        self.fill(dict.fromkeys(self.names, ""))

    def fill(self, data: Mapping[str, str]) -> str:
        """The prompt for these data, which went through `as_data`; surrounding space is taken off."""
        import jinja2

        try:
            filled: str = self._compiled.render(data).strip()
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise UsageError(f"the prompt cannot be filled in: {error}. Correct the template.") from error
        if len(filled) > MAX_PROMPT:
            raise UsageError(
                f"a filled prompt has at most {MAX_PROMPT} characters, got {len(filled)}. Lower max_chars."
            )
        return filled

    @functools.cached_property
    def used(self) -> tuple[str, ...]:
        """The names of which it speaks."""
        return tuple(sorted(spoken_of(self.source)))

    @functools.cached_property
    def fixed(self) -> tuple[str, ...]:
        """Its own words, in the pieces that lie between what is filled in."""
        return tuple(piece for node in nodes(self.source) if (piece := getattr(node, "data", "").strip()))

    @property
    def digest(self) -> str:
        return sha256(self.source.encode())

    def __reduce__(self) -> tuple[type["Template"], tuple[str, Collection[str]]]:
        return Template, (self.source, sorted(self.names))


@functools.cache
def environment() -> Any:
    """Jinja2 in its sandbox: nothing of Python can be reached, and a name that is not there is an error."""
    jinja2 = require_jinja()
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, optimized=False, keep_trailing_newline=False
    )
    made.globals.clear()
    return made


def require_jinja() -> Any:
    """The package; raises UsageError where it is not installed."""
    try:
        import jinja2
        import jinja2.sandbox
    except ImportError as error:
        raise UsageError("prompts are Jinja2 templates: `pip install 'relabel-ray[captions]'`.") from error
    return jinja2


@functools.lru_cache(maxsize=256)
def compiled(source: str) -> Any:
    """The template, every part of which is allowed; raises UsageError with the line where one is not."""
    import_error = require_jinja().TemplateError
    try:
        checked(source)
        return environment().from_string(source)
    except import_error as error:
        line = getattr(error, "lineno", None)
        raise UsageError(f"the prompt is no template{f', line {line}' if line else ''}: {error}") from error


def checked(source: str) -> None:
    for node in nodes(source):
        kind = type(node).__name__
        if kind == "Filter" and node.name not in FILTERS:
            raise UsageError(
                f"the prompt, line {node.lineno}: no filter {node.name!r}; there are {', '.join(sorted(FILTERS))}."
            )
        if kind not in NODES:
            raise UsageError(
                f"the prompt, line {node.lineno}: a prompt has {{{{ names }}}}, {{% if %}} and filters, got Jinja2's "
                f"{kind}. Loops, calls, attributes and arithmetic have no place in it."
            )


def nodes(source: str) -> Iterator[Any]:
    """Every part of the parsed template, in the order of the text."""
    return walk(environment().parse(source))


def walk(node: Any) -> Iterator[Any]:
    yield node
    for child in node.iter_child_nodes():
        yield from walk(child)


def spoken_of(source: str) -> set[str]:
    return {node.name for node in nodes(source) if type(node).__name__ == "Name"}
