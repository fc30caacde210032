"""Prompt templates as folders of text and TOML: found by name, checked, hashed, strictly rendered.

A template is a folder with ``template.toml`` (name, version, purpose, slots, verdict menu),
``system.txt`` and ``user.txt``. This module sends nothing and knows neither models nor prices.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prompts.errors import PromptError
from prompts.neutral import TAGS, neutralize
from prompts.types import Message
from prompts.verdict import VerdictMenu

FILE_NAMES = ("system.txt", "template.toml", "user.txt")

# What a user's own template may raise while it renders; Jinja wraps only some of it.
_RENDER_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
_TAG_IN_TEXT = re.compile(r"<([a-z][a-z0-9_]*)>")


class Slot(NamedTuple):
    """One place in a template that a value goes into.

    Attributes:
        name: The name used in the texts, lower case.
        about: What goes there, in a few words.
        is_untrusted: Whether the value comes from outside and is neutralized before rendering.
    """

    name: str
    about: str
    is_untrusted: bool


@dataclass(frozen=True)
class Template:
    """A checked template.

    Attributes:
        name: Its name, the same as its folder's for those of this package.
        version: Its version, for people; `sha256` is what identities are built from.
        purpose: What it is for, in one sentence.
        slots: Its slots in the order of the TOML file.
        menu: What a judge may answer, or None where no verdict is asked for.
        system_text: The system message before rendering; blank for none.
        user_text: The user message before rendering.
        sha256: Hex digest over the three files, with newlines normalized.
    """

    name: str
    version: str
    purpose: str
    slots: tuple[Slot, ...]
    menu: VerdictMenu | None
    system_text: str
    user_text: str
    sha256: str

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The names of the slots, in the order of the TOML file."""
        return tuple(slot.name for slot in self.slots)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags guarded in untrusted values: this room's own and those of the texts, sorted."""
        return _tags(self.system_text + self.user_text)

    def as_text(self) -> str:
        """The template in one readable piece: version, menu and slots, then both messages."""
        menu = f"{self.menu.marker}: {', '.join(self.menu.options)}" if self.menu else "none"
        head = (
            f"{self.name} version {self.version}\nmenu {menu}\nslots {', '.join(self.slot_names)}"
        )
        return f"{head}\n\n[system]\n{self.system_text}\n\n[user]\n{self.user_text}\n"

    def render(self, **slots: str) -> list[Message]:
        """Fill in the slots and return the chat messages, the system message first.

        Values go in as plain text: ``{{`` in a value stays as it is. Untrusted values are
        neutralized (see `prompts.neutral`), so no value can end its own tag or forge a verdict.

        Args:
            **slots: One text for each slot, no more and no fewer.

        Raises:
            PromptError: If a slot is missing, one is not known, or a value is no text.
        """
        values = self._checked(slots)
        messages: list[Message] = []
        for role, text in (("system", self.system_text), ("user", self.user_text)):
            try:
                content = _compiled(text).render(values).strip("\n")
            except _RENDER_FAULTS as error:
                raise PromptError(
                    f"template {self.name!r}: {role}.txt cannot be rendered ({error}), expected "
                    "slots and simple conditions; correct the template's text"
                ) from error
            if role == "system":
                if content.strip():
                    messages.append({"role": "system", "content": content})
            else:
                messages.append({"role": "user", "content": content})
        return messages

    def _checked(self, given: Mapping[str, object]) -> dict[str, str]:
        faults = [f"slot {name!r} is missing" for name in self.slot_names if name not in given]
        faults += [f"slot {name!r} is unknown" for name in given if name not in self.slot_names]
        values: dict[str, str] = {}
        marker = self.menu.marker if self.menu else None
        for slot in self.slots:
            value = given.get(slot.name)
            if isinstance(value, str):
                values[slot.name] = (
                    _neutralized(value, self.tags, marker) if slot.is_untrusted else value
                )
            elif slot.name in given:
                faults.append(f"slot {slot.name!r} holds {type(value).__name__}, not text")
        if faults:
            raise PromptError(
                f"template {self.name!r}: {'; '.join(faults)}; expected a text for each of "
                f"{', '.join(self.slot_names)}; pass exactly these"
            )
        return values


@cache
def template_names() -> tuple[str, ...]:
    """Return the names of the templates of this package, sorted."""
    folders = _shipped().iterdir()
    return tuple(sorted(f.name for f in folders if (f / "template.toml").is_file()))


@cache
def load_template(name: str) -> Template:
    """Load one of this package's templates; read once, at the first call.

    Raises:
        PromptError: If there is no template of that name.
    """
    if name not in template_names():
        raise PromptError(
            f"template {name!r}: not found, expected one of {', '.join(template_names())}; use "
            "one of these names, or load a folder of your own with load_template_folder"
        )
    return _load(_shipped() / name, label=f"template {name!r}")


def load_template_folder(path: Path | str) -> Template:
    """Load a user's own template from a folder, with the same checks as for our own.

    Raises:
        PromptError: If the folder or a file is missing or unreadable, or the template is faulty;
            all faults of one template are reported together.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise PromptError(
            f"template folder {str(folder)!r}: no such folder, expected one with "
            f"{', '.join(FILE_NAMES)}; check the path"
        )
    return _load(folder, label=f"template folder {str(folder)!r}")


def _shipped() -> Traversable:
    return files("prompts") / "templates"


def _load(folder: Traversable, label: str) -> Template:
    texts: dict[str, str] = {}
    faults: list[str] = []
    for name in FILE_NAMES:
        try:
            # A byte order mark and the newlines of another system are no change of content.
            text = (folder / name).read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            faults.append(f"{name} is missing")
        except UnicodeDecodeError:
            faults.append(f"{name} is not UTF-8")
        except OSError as error:
            faults.append(f"{name} cannot be read ({error.strerror})")
        else:
            texts[name] = text.replace("\r\n", "\n").replace("\r", "\n")
    if faults:
        raise _faulty(label, faults)
    try:
        declared = tomllib.loads(texts["template.toml"])
    except tomllib.TOMLDecodeError as error:
        raise _faulty(label, [f"template.toml is not TOML ({error})"]) from error
    return _built(label, declared, texts)


def _built(label: str, declared: dict[str, object], texts: dict[str, str]) -> Template:
    faults: list[str] = []
    faults += _unknown_keys(declared, ("name", "version", "purpose", "slots", "menu"), "key")
    name, version, purpose = (
        _text_at(declared, key, key, faults) for key in ("name", "version", "purpose")
    )
    slots = _slots(declared.get("slots", {}), faults)
    menu = _menu(declared["menu"], faults) if "menu" in declared else None
    system_text, user_text = texts["system.txt"], texts["user.txt"]
    if not user_text.strip():
        faults.append("user.txt is empty")
    _check_slots_used(slots, system_text, user_text, faults)
    lines = [menu.line(option) for option in menu.options] if menu else []
    faults += [
        f"no text tells the judge that it may answer {line!r}"
        for line in lines
        if line not in system_text + user_text
    ]
    if faults:
        raise _faulty(label, faults)
    digest = hashlib.sha256()
    for file_name in sorted(texts):
        content = texts[file_name].encode()
        digest.update(f"{file_name}\n{len(content)}\n".encode() + content)
    return Template(name, version, purpose, slots, menu, system_text, user_text, digest.hexdigest())


def _slots(table: object, faults: list[str]) -> tuple[Slot, ...]:
    if not isinstance(table, dict):
        faults.append("slots is no table")
        return ()
    slots = []
    for name, entry in table.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            faults.append(f"slot {name!r} is no lower-case name")
        if not isinstance(entry, dict):
            faults.append(f"slot {name!r} is no table")
            entry = {"about": "-", "is_untrusted": True}
        faults += _unknown_keys(entry, ("about", "is_untrusted"), f"key of slot {name!r}")
        about = _text_at(entry, "about", f"about of slot {name!r}", faults)
        is_untrusted = entry.get("is_untrusted")
        if not isinstance(is_untrusted, bool):
            faults.append(f"is_untrusted of slot {name!r} is not true or false")
        slots.append(Slot(name, about, is_untrusted is not False))
    return tuple(slots)


def _menu(table: object, faults: list[str]) -> VerdictMenu | None:
    if not isinstance(table, dict):
        faults.append("menu is no table")
        return None
    faults += _unknown_keys(table, ("marker", "options"), "key of menu")
    marker, options = table.get("marker"), table.get("options")
    if not isinstance(marker, str):
        faults.append("marker of menu is missing or no text")
        return None
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        faults.append("options of menu is missing or no list of texts")
        return None
    try:
        return VerdictMenu(marker, tuple(options))
    except PromptError as error:
        faults.append(str(error))
        return None


def _check_slots_used(
    slots: tuple[Slot, ...], system_text: str, user_text: str, faults: list[str]
) -> None:
    used: set[str] = set()
    for file_name, text in (("system.txt", system_text), ("user.txt", user_text)):
        try:
            tree = _environment().parse(text)
        except jinja2.TemplateSyntaxError as error:
            faults.append(f"{file_name} line {error.lineno} is not Jinja ({error.message})")
            return
        if any(True for _ in jinja2.meta.find_referenced_templates(tree)):
            faults.append(f"{file_name} includes another template")
        used |= jinja2.meta.find_undeclared_variables(tree)
    names = {slot.name for slot in slots}
    faults += [f"slot {name!r} is used but not declared" for name in sorted(used - names)]
    faults += [f"slot {name!r} is declared but not used" for name in sorted(names - used)]


def _unknown_keys(table: Mapping[str, object], known: tuple[str, ...], what: str) -> list[str]:
    return [f"unknown {what}: {key!r}" for key in table if key not in known]


def _text_at(table: Mapping[str, object], key: str, what: str, faults: list[str]) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        faults.append(f"{what} is missing or no text")
        return ""
    return value


def _faulty(label: str, faults: list[str]) -> PromptError:
    found = " ".join("; ".join(faults).split())
    return PromptError(
        f"{label}: {found}; expected template.toml with name, version, purpose, a table for each "
        "slot and perhaps a menu, and texts that use those slots; correct the folder"
    )


@cache
def _tags(text: str) -> tuple[str, ...]:
    return tuple(sorted({*TAGS, *_TAG_IN_TEXT.findall(text)}))


# A response is judged by many people in two orders; bounded, since responses may be long.
@lru_cache(maxsize=1024)
def _neutralized(value: str, tags: tuple[str, ...], marker: str | None) -> str:
    return neutralize(value, tags=tags, marker=marker)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )


@cache
def _compiled(text: str) -> jinja2.Template:
    return _environment().from_string(text)
