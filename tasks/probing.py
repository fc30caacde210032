"""What an endpoint can do, asked before money depends on it."""

from __future__ import annotations

from tasks._engines import real_endpoint
from tasks._llm.probe import probe
from tasks._llm.probe_types import ProbeResult


def probe_endpoint(base_url: str, model: str) -> ProbeResult:
    """Asks about a dozen small things, with the key of the environment; keeps nothing.

    Raises:
        LlmError: The endpoint cannot be reached, rejects the key, or does not serve the model.
    """
    return probe(real_endpoint(base_url), model)
