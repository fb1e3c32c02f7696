"""masked: texts and arguments as they may be shown or kept, without the secrets in them.

Engines take keys and tokens as arguments, print them, and echo headers in their errors. What is a secret is told by the
name before it (``--api-key``, ``HF_TOKEN=``, ``"api_key":``), by its form (``Bearer ...``, ``hf_...``, a user in an
address), or by the caller, who knows the keys of its own run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MASK = "***"
LONGEST_SHOWN = 200

_WORD = r"(?:api[-_]?)?(?:key|keys|token|secret|password|passwd|pwd|credential|credentials|authorization)"
# Whole words only: --tokenizer, --max-num-batched-tokens, --ssl-keyfile and --kv-cache-dtype are none.
_NAME = rf"(?:[\w.-]*[-_.])?{_WORD}"
_IS_NAME = re.compile(rf"-{{0,2}}{_NAME}", re.IGNORECASE)
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (rf"""(["']{_NAME}["']\s*[:=]\s*)(?:\[[^\]]*\]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,}}\]]+)""", r'\1"***"'),
        (r"\b(Bearer|Basic)\s+(?!\*\*\*)\S+", r"\1 ***"),
        (r"(://)[^/@\s]+@", r"\1***@"),
        (rf"([?&](?:{_NAME}|sig|signature)=)[^&\s\"']+", r"\1***"),
        (rf"(?<![\w.-])(-{{1,2}}{_NAME}(?:=|\s+))(?!\*\*\*|-)(\"[^\"]*\"|'[^']*'|\S+)", r"\1***"),
        (rf"(?<![\w.?&-])({_NAME}\s*[=:]\s*)(?!\*\*\*|Bearer|Basic)(\"[^\"]*\"|'[^']*'|[^\s,;]+)", r"\1***"),
        (r"\b(?:hf_|sk-)[A-Za-z0-9_-]{6,}", MASK),
    )
)


def masked_args(args: Sequence[str]) -> tuple[str, ...]:
    """Arguments with ``***`` in the place of every secret: ``--api-key *** ***``, ``--hf-token=***``.

    An option that names a secret may have several values, up to the next option, as vLLM's --api-key has.
    """
    kept: list[str] = []
    secret = False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if arg.startswith("-") and not _is_number(arg):
            secret = _IS_NAME.fullmatch(name) is not None
            kept.append(f"{name}={MASK}" if secret and equals else masked(arg))
        else:
            kept.append(MASK if secret else masked(arg))
    return tuple(kept)


def secrets_of(args: Sequence[str], option: str | None = None) -> tuple[str, ...]:
    """The secrets among arguments, those of one option where it is named, for masking whatever else may show them."""
    found: list[str] = []
    secret = False
    for arg in args:
        name, equals, value = arg.partition("=")
        if arg.startswith("-") and not _is_number(arg):
            secret = _IS_NAME.fullmatch(name) is not None and option in (None, name)
            found += [value] if secret and equals else []
        elif secret:
            found.append(arg)
    return tuple(filter(None, found))


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """A text with ``***`` in the place of ``secrets`` and of everything in it that is named or formed as one."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    for rule, replacement in _RULES:
        text = rule.sub(replacement, text)
    return text


def shown(text: str, secrets: Iterable[str] = (), *, longest: int = LONGEST_SHOWN) -> str:
    """What others wrote, as it may be shown: masked, on one line, cut, and without a character that moves a cursor."""
    line = " ".join(masked(text, secrets).split())
    line = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _is_number(arg: str) -> bool:
    return re.fullmatch(r"-\d+(\.\d*)?", arg) is not None
