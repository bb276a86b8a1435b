"""Faults of programs: what `bench.gate` found when it put programs that are really broken through the gate. It is part
of the package, so that a page of evidence can quote it with the version that it was found on."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import msgspec

from featherweight.core.terminal import counted


class AppFaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of one app: so many faults, each planted on cases of so many seeds; judged, refused: how often. honest_judged,
    honest_refused: of the int8 program without a fault. passed: the faults that were not always refused."""

    app: str
    faults: int
    seeds: int
    judged: int
    refused: int
    honest_judged: int
    honest_refused: int
    passed: tuple[str, ...] = ()


class ProgramFaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """featherweight: the version that it was found on; command, date: how and when."""

    featherweight: str
    command: str
    date: str
    apps: tuple[AppFaults, ...]

    def describe(self) -> str:
        """In sentences, for a page."""
        of = " and ".join(f"{one.faults} of {one.app}" for one in self.apps)
        faults, judged = sum(one.faults for one in self.apps), sum(one.judged for one in self.apps)
        refused = sum(one.refused for one in self.apps)
        honest, against = (sum(getattr(one, f"honest_{name}") for one in self.apps) for name in ("judged", "refused"))
        passed = sorted({name for one in self.apps for name in one.passed})
        through = f" ({'; '.join(passed)} passed at least once)" if passed else ""
        return (
            f"Programs that are really broken are not made of this model: featherweight {self.featherweight} was tried "
            f"with {faults:,} of them ({of}), on cases of {counted(max(one.seeds for one in self.apps), 'seeds')}, on "
            f"{self.date}: {refused:,} of "
            f"{counted(judged, 'judgements')} were refusals{through}, and {against} of {honest} of the honest programs."
        )


@lru_cache(maxsize=1)
def read_program_faults() -> ProgramFaults:
    """What this package holds."""
    content = files("featherweight.core.evidence").joinpath("program_faults.json").read_bytes()
    return msgspec.json.decode(content, type=ProgramFaults)
