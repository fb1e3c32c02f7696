"""ServerLimits: what one client may ask of the server and how long it may take, so that others are served beside it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from melange.errors import InputError

HELD_BODIES = 16  # bodies of the largest size that may be in memory at once, of all clients together


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of an HTTP server. None leaves a number of tokens to the engine's context.

    ``max_body_bytes`` (413 beyond it), ``max_prompts``, ``max_prompt_tokens`` and ``max_output_tokens`` (400) bound one
    request. ``max_waiting_prompts`` bounds what is accepted and unfinished of all clients together (503). At most
    ``prompts_at_once`` prompts of one request are with the engine; None: as many as it runs at once, so a request that
    comes later waits for the next to end, never for all. A client has ``read_timeout_s`` to send a request's headers
    (else it is disconnected) and again for its body (408), and ``write_timeout_s`` to take each part of its answer.
    """

    max_body_bytes: int = 16 * 2**20
    max_prompts: int = 2048
    max_prompt_tokens: int | None = None
    max_output_tokens: int | None = None
    max_waiting_prompts: int = 16384
    prompts_at_once: int | None = None
    read_timeout_s: float = 60.0
    write_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not 0 < value < 1e18:
                raise InputError(f"{one.name} is {value}", fix="give a number above 0")

    @property
    def held_bytes(self) -> int:
        """Most bytes of request bodies in memory at once."""
        return HELD_BODIES * self.max_body_bytes
