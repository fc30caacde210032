"""The simulated language model as a command."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tasks.errors import InputRejected


def serve(port: int, overrides: Iterable[str]) -> None:
    """Serves until interrupted.

    Args:
        port: On the loopback interface.
        overrides: ``name=value`` settings of the simulator.
    """
    from tasks._llm.simulator.__main__ import main
    from tasks._llm.simulator.settings import SimulatorSettings

    values: dict[str, Any] = {}
    for one in overrides:
        name, equals, text = one.partition("=")
        if not equals or name not in SimulatorSettings.__dataclass_fields__:
            raise InputRejected(
                f"--set: {one!r} is no setting of the simulator; expected name=value with one of"
                f" {', '.join(SimulatorSettings.__dataclass_fields__)}"
            )
        values[name] = text if name == "api_key" else json.loads(text)
    main(["--port", str(port), "--settings", json.dumps(values)])
