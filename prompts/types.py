"""The wire shape of a chat message; no class of any client library appears here."""

from typing import Literal, TypedDict


class Message(TypedDict):
    """One chat message, as an OpenAI-compatible endpoint takes it."""

    role: Literal["system", "user", "assistant"]
    content: str
