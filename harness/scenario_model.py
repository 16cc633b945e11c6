# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario language, key by key: types, defaults, and what each may be.

The words under a key are its description in the JSON Schema as well, and
docs/scenario.md is checked against them.  :mod:`harness.scenario` loads files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from harness.located import WrittenFloat, WrittenInt
from harness.units import (
    PAGE_SIZE,
    PERCENT_PATTERN,
    RATE_PATTERN,
    SIZE_PATTERN,
    Percent,
    format_rate,
    format_size,
    parse_rate,
    parse_size,
    parse_size_or_percent,
)

Arm: TypeAlias = Literal["off", "hint", "info"]
Accelerator: TypeAlias = Literal["auto", "kvm", "tcg"]
VerdictWord: TypeAlias = Literal["pass", "fail", "inconclusive"]

MIB = 2**20
#: A kernel with our image does not come up in less.
LEAST_MEMORY = 128 * MIB
#: What a guest needs beside the noise: kernel, image, agent, page tables.
NOISE_MARGIN = 96 * MIB


def _written(value: object) -> object:
    """The text of a number where text is wanted: ``kernel: 6.10`` stays 6.10."""
    return value.text if isinstance(value, WrittenInt | WrittenFloat) else value


def _size(value: object) -> object:
    value = _written(value)
    return parse_size(value) if isinstance(value, str) else _no_plain_number(value, "'2GiB'")


def _rate(value: object) -> object:
    value = _written(value)
    return parse_rate(value) if isinstance(value, str) else _no_plain_number(value, "'32MiB/s'")


def _share(value: object) -> object:
    value = _written(value)
    if isinstance(value, str):
        return parse_size_or_percent(value)
    return value if isinstance(value, Percent) else _no_plain_number(value, "'1500MiB' or '73%'")


def _no_plain_number(value: object, example: str) -> object:
    # An int comes from code (a resolved scenario, a test), never from a file.
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f"expected a size such as {example}, got {value!r}")


def _show_share(value: int | Percent) -> str:
    return str(value) if isinstance(value, Percent) else format_size(value)


def _schema(*patterns: str, example: str) -> WithJsonSchema:
    text: dict[str, object] = {"type": "string", "examples": [example]}
    if len(patterns) == 1:
        return WithJsonSchema({**text, "pattern": patterns[0]})
    return WithJsonSchema({**text, "anyOf": [{"pattern": pattern} for pattern in patterns]})


Text: TypeAlias = Annotated[str, BeforeValidator(_written)]
Size: TypeAlias = Annotated[
    int, BeforeValidator(_size), PlainSerializer(format_size), _schema(SIZE_PATTERN, example="2GiB")
]
Rate: TypeAlias = Annotated[
    int, BeforeValidator(_rate), PlainSerializer(format_rate), _schema(RATE_PATTERN, example="32MiB/s")
]
Share: TypeAlias = Annotated[
    int | Percent,
    BeforeValidator(_share),
    PlainSerializer(_show_share),
    _schema(SIZE_PATTERN, PERCENT_PATTERN, example="73%"),
]

_CMDLINE = re.compile(r"[A-Za-z0-9 ._,:;=/@+*%^~!\[\]()\"-]*")
#: The harness says these itself; a second one would win or confuse without a word.
_CMDLINE_OURS = ("freepage.", "console=", "init=", "rdinit=", "root=", "initrd=")


def _cmdline(text: str) -> str:
    """Only what a kernel's command line can hold, and nothing that the harness says itself."""
    if len(text) > 1024:
        raise ValueError("expected at most 1024 characters")
    if not _CMDLINE.fullmatch(text):
        strange = next(c for c in text if not _CMDLINE.fullmatch(c))
        raise ValueError(f'expected letters, digits, spaces and ._,:;=/@+*%^~!()[]"-, got {strange!r}')
    if text.count('"') % 2:
        raise ValueError("expected every quotation mark to have its partner")
    for word in text.split():
        if word == "--" or word.startswith(_CMDLINE_OURS):
            raise ValueError(f"{word!r} is set by the testbed itself")
    return text


def _memory(size: int) -> int:
    if size < LEAST_MEMORY or size % MIB:
        least = format_size(LEAST_MEMORY)
        raise ValueError(f"expected at least {least} and whole MiB, got {format_size(size)!r}")
    return size


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Guest(_Model):
    """The virtual machine under test."""

    memory: Annotated[Size, AfterValidator(_memory)] = 1024 * MIB
    """Its memory. Each of the two hosts needs as much."""
    vcpus: Annotated[int, Field(ge=1, le=64)] = 1
    """Virtual CPUs."""
    machine: Literal["pc", "q35"] = "pc"
    """Machine type: i440FX or Q35."""
    kernel: Annotated[Text, Field(min_length=1)] = "default"
    """A kernel that the toolchain knows by name, or the path (with a slash) of a vmlinuz."""
    cmdline: Annotated[Text, AfterValidator(_cmdline)] = ""
    """Words appended to the kernel's command line."""
    boot_timeout_s: Annotated[int, Field(ge=1, le=86400)] = 180
    """Seconds until the guest must have said that it is ready."""


class Idle(_Model):
    """The guest has booted and does nothing."""

    kind: Literal["idle"] = "idle"
    """Which workload."""
    keep: Size | None = None
    """Memory with known content that it owns and verifies afterwards."""


class Freed(_Model):
    """Memory was filled with noise and freed again: free, but not zero."""

    kind: Literal["freed"] = "freed"
    """Which workload."""
    noise: Share = Percent(Decimal(73))
    """How much is filled: a size, or a share of the guest's memory."""
    keep: Size = 16 * MIB
    """Memory with known content that it owns and verifies afterwards."""


class Fragmented(_Model):
    """As freed, but only every other page: free memory is single pages between pages in use."""

    kind: Literal["fragmented"] = "fragmented"
    """Which workload."""
    noise: Share = Percent(Decimal(73))
    """How much is filled: a size, or a share of the guest's memory. Half of it stays in use."""


class Churn(_Model):
    """Pages are written, freed and allocated again for as long as the migration runs."""

    kind: Literal["churn"] = "churn"
    """Which workload."""
    noise: Share = Percent(Decimal(40))
    """How much memory it works on: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Pages a second that it writes, frees or allocates."""


Workload: TypeAlias = Annotated[Idle | Freed | Fragmented | Churn, Field(discriminator="kind")]
WORKLOADS: Mapping[str, type[_Model]] = {
    "idle": Idle,
    "freed": Freed,
    "fragmented": Fragmented,
    "churn": Churn,
}


class Migration(_Model):
    """How the guest is moved."""

    bandwidth: Rate | None = None
    """Limit of the migration's own making; null: as fast as it goes."""
    downtime_limit_ms: Annotated[int, Field(ge=1, le=2_000_000)] = 300
    """The longest pause that QEMU may plan for."""
    multifd: Annotated[int, Field(ge=0, le=255)] = 0
    """Parallel channels; 0: one stream."""
    timeout_s: Annotated[int, Field(ge=1, le=86400)] = 300
    """Seconds until the migration must have completed."""


class Expect(_Model):
    """What must come out. An expectation that is not met is a failure."""

    verdict: VerdictWord = "pass"
    """The verdict that this scenario is written to show."""
    skipping: bool | None = None
    """Whether pages must have been skipped at all: none where some were expected is
    inconclusive. null: in the arms info and hint."""
    skipped_percent_min: Annotated[float, Field(ge=0, le=100)] | None = None
    """Arm info: at least so many of all compared pages must have been skipped, in percent."""
    skipped_percent_max: Annotated[float, Field(ge=0, le=100)] | None = None
    """Arm info: at most so many, in percent."""
    sent_over_floor_max: Annotated[float, Field(gt=0)] | None = None
    """Arm info: (bytes sent - head) / floor may be at most this."""


class Scenario(_Model):
    """One scenario. Only ``name`` must be given; everything else has a default."""

    name: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Small letters, digits and dashes; names the run's folder."""
    summary: Text = ""
    """One line for lists."""
    arm: Arm = "info"
    """off: plain migration; hint: upstream's free page hint; info: free page info."""
    accelerator: Accelerator = "auto"
    """auto: KVM where it was shown to run guests, TCG otherwise."""
    guest: Guest = Guest()
    """The virtual machine under test."""
    workload: Workload = Idle()
    """What the guest does with its memory."""
    migration: Migration = Migration()
    """How it is moved."""
    strict: bool = True
    """Hold the guest at every request and take digests, so that "unchanged since the
    request" is a fact. Without: inferred from the device's own dirty log."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Of the workload's contents and everything else that is random; null: a new one each run."""
    expect: Expect = Expect()
    """What must come out."""

    @model_validator(mode="after")
    def _fits(self) -> Scenario:
        noise = noise_bytes(self)
        if noise + NOISE_MARGIN > self.guest.memory:
            raise PydanticCustomError(
                "at",
                "{what} does not fit into a guest of {memory}, which needs {margin} for itself",
                {
                    "path": ("workload", "noise"),
                    "what": format_size(noise),
                    "memory": format_size(self.guest.memory),
                    "margin": format_size(NOISE_MARGIN),
                },
            )
        least, most = self.expect.skipped_percent_min, self.expect.skipped_percent_max
        if least is not None and most is not None and least > most:
            path = {"path": ("expect", "skipped_percent_min")}
            raise PydanticCustomError("at", "expected at most skipped_percent_max", path)
        return self

    def to_yaml(self) -> str:
        """The scenario as a file that :func:`load_scenario` reads back to the same value."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def noise_bytes(scenario: Scenario) -> int:
    """How much the workload fills, in whole pages; a share is of the guest's memory."""
    noise = getattr(scenario.workload, "noise", 0)
    size = noise.of(scenario.guest.memory) if isinstance(noise, Percent) else int(noise)
    return size - size % PAGE_SIZE
