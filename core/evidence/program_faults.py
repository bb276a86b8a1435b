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
    """featherweight: the version that it was found on; command, date: how and when; apps: none where it was not run."""

    featherweight: str
    command: str
    date: str
    apps: tuple[AppFaults, ...]

    def describe(self) -> str:
        """In sentences, for a page."""
        if not self.apps:
            return f"Faults of programs were not run on featherweight {self.featherweight}."
        of = " and ".join(f"{one.faults} of {one.app}" for one in self.apps)
        judged, refused, honest, against = (
            sum(getattr(one, name) for one in self.apps)
            for name in ("judged", "refused", "honest_judged", "honest_refused")
        )
        passed = sorted({name for one in self.apps for name in one.passed})
        through = f" (let through at least once: {'; '.join(passed)})" if passed else ""
        return (
            f"Faults of programs are planted in programs of their own, not in this one: featherweight "
            f"{self.featherweight} was given {sum(one.faults for one in self.apps)} ({of}) on "
            f"{counted(max(one.seeds for one in self.apps), 'sets of cases')} on {self.date}; {refused:,} of "
            f"{counted(judged, 'judgements')} were refusals{through}, and {against} of {honest} of programs without a "
            "fault."
        )


@lru_cache(maxsize=1)
def read_program_faults() -> ProgramFaults:
    """What this package holds."""
    content = files("featherweight.core.evidence").joinpath("program_faults.json").read_bytes()
    return msgspec.json.decode(content, type=ProgramFaults)
