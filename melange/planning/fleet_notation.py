"""The one notation for a fleet: ``2xH100 + 7xL40S/fp8``, as plans print it and as commands take it.

    fleet   = part { "+" part }
    part    = [ count "x" ] machine { "/" choice }
    machine = GPU | GPU ":" number | instance        H100, H100:8, p5.48xlarge, L4@aws
    choice  = "tp" N | precision | "kv-" dtype | "bt" tokens | "s" requests

A count is of machines, as in a plan's ``instances``; without one it is 1. ``H100:8`` is a machine of eight, ``H100``
alone the smallest on offer that holds a replica of the TP degree named (one GPU where none is), and one that is owned
only where none is rented out: ``H100@owned`` names those. The choices are those of a config's name and hold for every
replica on the part's machines; what is not named stays open.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from melange.catalog.hardware import Catalog
from melange.catalog.instances import InstanceType
from melange.catalog.offers import MOST_GPUS, offer_names
from melange.catalog.precisions import PRECISIONS
from melange.errors import InputError
from melange.planning.limits import catalog_name
from melange.serving.config import KV_DTYPES

MOST_MACHINES = 100_000
_PLUS = re.compile(r"\+(?!(?:spot|on-demand)\b)")  # offers' names may end in +spot
_COUNT = re.compile(r"([0-9]+)\s*[x*]\s*(?=\S)", re.IGNORECASE)
_NO_COUNT = re.compile(r"(?:[-+][0-9]|[0-9]*\.[0-9]|nan|inf)[^/x]*x", re.IGNORECASE)
_SIZE = re.compile(r"(.+):([0-9]+)")
_NUMBERED = {"tp": "tp", "bt": "batched_tokens", "s": "sequences"}
EXAMPLE = "write it as 2xH100 + 7xL40S/fp8"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPart:
    """``count`` machines of one kind, and what their replicas are to be; None is left open.

    ``name`` is a GPU's or an instance's, as it was written; ``gpus`` is how many a machine has, ``tp`` the
    tensor-parallel degree, ``batched_tokens`` the most tokens of an iteration and ``sequences`` its most requests.
    """

    count: int
    name: str
    gpus: int | None = None
    tp: int | None = None
    precision: str | None = None
    kv_dtype: str | None = None
    batched_tokens: int | None = None
    sequences: int | None = None

    def __post_init__(self) -> None:
        for what, value, most in (
            ("count", self.count, MOST_MACHINES), ("number of GPUs", self.gpus, MOST_GPUS),
            ("tensor-parallel degree", self.tp, MOST_GPUS), ("token budget", self.batched_tokens, 10**9),
            ("number of sequences", self.sequences, 10**9),
        ):  # fmt: skip
            if value is not None and not 1 <= value <= most:
                raise InputError(f"fleet: {self.name}: the {what} is {value}", fix=f"give a number from 1 to {most}")
        if self.tp is not None and self.gpus is not None and self.tp > self.gpus:
            raise InputError(
                f"fleet: {self.name}: TP {self.tp} needs more GPUs than the {self.gpus} of the machine",
                fix=f"name a machine of {self.tp} GPUs",
            )

    @property
    def machines(self) -> str:
        """``1xH100:8``, choices left out."""
        return f"{self.count}x{self.name}" + (f":{self.gpus}" if (self.gpus or 1) > 1 else "")

    @property
    def choices(self) -> tuple[object, ...]:
        """What is asked of its replicas."""
        return self.tp, self.precision, self.kv_dtype, self.batched_tokens, self.sequences


def parse_fleet(text: str) -> tuple[FleetPart, ...]:
    """The parts of a fleet in the notation of this module; InputError says which part cannot be read, and why."""
    return tuple(_part(part.strip()) for part in _PLUS.split(text))


def _part(text: str) -> FleetPart:
    if not text:
        raise InputError("fleet: a part is empty", fix=EXAMPLE)
    if _NO_COUNT.match(text):
        raise InputError(f"fleet: the count of {text!r} is not a whole number from 1", fix=EXAMPLE)
    counted = _COUNT.match(text)
    name, *words = (text[counted.end() :] if counted else text).split("/")
    if "@" in name:  # a region may stand between the provider and the choices
        while words and _choice(words[0]) is None:
            name += "/" + words.pop(0)
    chosen: dict[str, object] = {}
    for word in words:
        choice = _choice(word.strip())
        if choice is None:
            known = ", ".join(("tp1", *PRECISIONS, *(f"kv-{kind}" for kind in KV_DTYPES), "bt2048", "s64"))
            raise InputError(f"fleet: {text!r} has an unknown choice {word!r}", fix=f"choices are such as {known}")
        if choice[0] in chosen:
            raise InputError(f"fleet: {text!r} names its {choice[0].replace('_', ' ')} twice", fix="name it once")
        chosen[choice[0]] = choice[1]
    sized = _SIZE.fullmatch(name.strip())
    name, gpus = (sized[1].strip(), int(sized[2])) if sized else (name.strip(), None)
    if not name:
        raise InputError(f"fleet: {text!r} names no machine", fix=EXAMPLE)
    return FleetPart(count=int(counted[1]) if counted else 1, name=name, gpus=gpus, **chosen)  # type: ignore[arg-type]


def _choice(word: str) -> tuple[str, str | int] | None:
    """What a word after a slash says: the field of FleetPart and its value; None where it says nothing."""
    numbered = re.fullmatch("([a-z]{1,2})([0-9]{1,9})", word)
    if numbered and numbered[1] in _NUMBERED:
        return _NUMBERED[numbered[1]], int(numbered[2])
    if word in PRECISIONS:
        return "precision", word
    kind = word.removeprefix("kv-")
    return ("kv_dtype", kind) if kind != word and kind in KV_DTYPES else None


def machine_of(part: FleetPart, offers: Sequence[InstanceType], catalog: Catalog, *, priced: str) -> InstanceType:
    """The machine that a part means among the offers that may be used: the cheapest of those that it describes.

    ``priced`` names the price list in errors. InputError: a name that nothing carries, a GPU or size without an offer.
    """
    meant = catalog_name(part.name, catalog)
    of_gpu = [offer for offer in offers if offer.gpu == meant]
    of_gpu = [offer for offer in of_gpu if not offer.owned] or of_gpu
    named = of_gpu or [offer for offer in offers if part.name in {offer.key, *offer_names(offer)}]
    if not named:
        on_offer = f"on offer: {', '.join(sorted({offer.gpu for offer in offers}))}"
        if meant in catalog.gpus:
            called = part.name if part.name == meant else f"{part.name} ({meant})"
            raise InputError(f"fleet: {priced} has no offer of {called}", fix=on_offer)
        known = {*catalog.gpus, *(name for offer in offers for name in offer_names(offer))}
        near = difflib.get_close_matches(part.name, sorted(known), n=1, cutoff=0.6)
        fix = f"did you mean {near[0]!r}?" if near else on_offer
        raise InputError(f"fleet: unknown GPU or instance type {part.name!r}", fix=fix)
    sizes = sorted({offer.gpus for offer in named})
    fitting = [size for size in sizes if part.gpus in (None, size) and size >= (part.tp or 1)]
    if not fitting:
        asked = f"of {part.gpus} GPUs" if part.gpus is not None else f"for TP {part.tp}"
        raise InputError(
            f"fleet: {priced} has no machine of {part.name} {asked}",
            fix=f"its machines have {', '.join(map(str, sizes))} GPUs",
        )
    return min(
        (offer for offer in named if offer.gpus == fitting[0]),
        key=lambda offer: (offer.price_usd_per_hour, offer.spot, offer.provider, offer.name),
    )
