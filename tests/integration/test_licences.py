"""What docs/licences.md says of the base install and the serving extras is what is installed here, and permissive."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SETS = ("base", "fraud", "openvino", "edge", "nvml")
COPYLEFT = re.compile(r"\b[AL]?GPL|General Public License", re.IGNORECASE)
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-3-Clause-Open-MPI", "CC0-1.0"),
    *("FTL", "IJG", "ISC", "MIT", "MIT-CMU", "MIT-Modern-Variant", "MIT-open-group", "PSF-2.0", "Unlicense", "X11"),
    *("Zlib", "libpng-2.0", "libtiff"),
    *("Apache-2.0 WITH LLVM-exception", "GPL-3.0-or-later WITH GCC-exception-3.1"),
    "MPL-2.0",  # of whole distributions that are used unmodified
}
EXCEPTIONS = {("numpy", "numpy.libs/libquadmath-*.so*", "LGPL-2.1-or-later")}
"""docs/licences.md gives the reason for each."""


@dataclass(frozen=True)
class Page:
    """distributions: name -> (licence, needed by); libraries: (distribution, pattern) -> licence."""

    distributions: Mapping[str, tuple[str, str]]
    libraries: Mapping[tuple[str, str], str]


def parse_page(text: str) -> Page:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    cells = [row for row in rows if row[0] != "distribution" and not set("".join(row)) <= set("-")]
    return Page(
        {row[0]: (row[1], row[2]) for row in cells if len(row) == 3},
        {(row[0], row[1]): row[3] for row in cells if len(row) == 4},
    )


def resolve(requirements: Iterable[str], path: list[str] | None = None) -> dict[str, Distribution]:
    """What `requirements` bring here, theirs included. path: where to look before the environment."""
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = find(name, path)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in found[name].requires or []]
    return found


def find(name: str, path: list[str] | None) -> Distribution:
    for known in Distribution.discover(name=name, path=path or []):
        return known
    return distribution(name)


def told_licences(found: Distribution) -> list[str]:
    """All that the metadata says; of a licence's whole text its first line."""
    metadata = found.metadata
    classifiers = [text for text in metadata.get_all("Classifier") or [] if text.startswith("License ::")]
    texts = [metadata.get("License-Expression") or "", (metadata.get("License") or "").strip().partition("\n")[0]]
    return [text for text in (*texts, *classifiers) if text]


def is_allowed(licence: str) -> bool:
    """Of an SPDX expression without brackets: every part that must hold, one of those to choose from."""
    return any(all(part in PERMISSIVE for part in choice.split(" AND ")) for choice in licence.split(" OR "))


def faults(found: Mapping[str, Distribution], page: Page) -> list[str]:
    wrong = []
    for name, known in found.items():
        told = told_licences(known)
        if not told:
            wrong.append(f"{name}: its metadata names no licence")
        if any(COPYLEFT.search(text) for text in told):
            wrong.append(f"{name}: {told}")
        licence, _ = page.distributions.get(name, ("", ""))
        if not is_allowed(licence):
            wrong.append(f"{name}: not on the page with an allowed licence, found {licence!r}")
        for file in known.files or []:
            if not re.search(r"\.(so|dylib|dll)(\.|$)", str(file)) or re.search(
                r"\.(abi3|cpython-[^/]*)\.so$", str(file)
            ):
                continue
            patterns = [key for key in page.libraries if key[0] == name and fnmatchcase(str(file), key[1])]
            if not patterns:
                wrong.append(f"{name}: {file} is not on the page")
            for key in patterns:
                if not is_allowed(page.libraries[key]) and (*key, page.libraries[key]) not in EXCEPTIONS:
                    wrong.append(f"{name}: {file} is under {page.libraries[key]}")
    return wrong


@pytest.fixture(scope="module")
def page() -> Page:
    return parse_page((ROOT / "docs" / "licences.md").read_text())


@pytest.fixture(scope="module")
def sets() -> dict[str, dict[str, Distribution]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = {name: project["optional-dependencies"].get(name, project["dependencies"]) for name in SETS}
    found = {}
    for name, texts in requirements.items():
        try:
            found[name] = resolve(texts)
        except PackageNotFoundError as error:
            pytest.fail(f"{name} needs {error}, which is not installed here")
    return found


def test_everything_is_permissive_and_on_the_page(sets: dict[str, dict[str, Distribution]], page: Page) -> None:
    everything = {name: known for found in sets.values() for name, known in found.items()}
    assert len(everything) > 40
    assert faults(everything, page) == []


def test_the_page_lists_nothing_else(sets: dict[str, dict[str, Distribution]], page: Page) -> None:
    needed: dict[str, list[str]] = {}
    for part, found in sets.items():
        for name in found:
            needed.setdefault(name, []).append(part)
    expected = {name: "base" if "base" in parts else ", ".join(parts) for name, parts in needed.items()}
    assert {name: parts for name, (_, parts) in page.distributions.items()} == expected
    stale = [
        key
        for key in page.libraries
        if not any(
            fnmatchcase(str(file), key[1])
            for part in sets.values()
            if key[0] in part
            for file in part[key[0]].files or []
        )
    ]
    assert stale == []


def plant(folder: Path, licence: str, files: Iterable[str] = (), requires: Iterable[str] = ()) -> None:
    info = folder / "planted-1.0.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: planted\nVersion: 1.0\n{licence}\n{needs}")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:  # Python 3.12 and newer leave out what is recorded and not there
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


PLANTED = Page({"planted": ("MIT", "base")}, {("planted", "planted.libs/libfine-*.so*"): "MIT"})


@pytest.mark.parametrize(
    ("licence", "files"),
    [
        ("License-Expression: LGPL-2.1-or-later", ()),
        ("License: GPL V3.0", ()),
        ("Classifier: License :: OSI Approved :: GNU Affero General Public License v3", ()),
        ("Summary: without a licence", ()),
        ("License-Expression: MIT", ("planted.libs/libavcodec-c4204469.so.62.28.101",)),
        ("License-Expression: MIT", ("planted.libs/libfine-0.so.1", "planted/vendor/other.dll")),
    ],
)
def test_a_planted_distribution_is_found(tmp_path: Path, licence: str, files: tuple[str, ...]) -> None:
    plant(tmp_path, licence, files)
    assert len(faults(resolve(["planted"], [str(tmp_path)]), PLANTED)) == 1


def test_a_distribution_that_is_not_on_the_page_is_found_behind_another(tmp_path: Path) -> None:
    plant(tmp_path, "License-Expression: MIT", requires=["mdurl", "pytest; extra == 'other'"])
    assert [text.partition(":")[0] for text in faults(resolve(["planted"], [str(tmp_path)]), PLANTED)] == ["mdurl"]


def test_a_library_under_a_licence_that_is_not_allowed_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "License-Expression: MIT", ["planted.libs/libfine-0.so"])
    strict = Page(PLANTED.distributions, {("planted", "planted.libs/libfine-*.so*"): "LGPL-2.1-or-later"})
    assert len(faults(resolve(["planted"], [str(tmp_path)]), strict)) == 1
    assert faults(resolve(["planted"], [str(tmp_path)]), PLANTED) == []


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cv2", "crc32c", "libjpeg", "openjpeg", "pylibjpeg"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
"""

WITHOUT = f"""{BLOCKED}
from pathlib import Path
import numpy as np
from featherweight.apps.imaging.readers import dicom
from featherweight.apps.imaging.synthetic.dicom import synthetic_cases, write_synthetic

folder = Path(sys.argv[1])
write_synthetic(folder, 5, 0, side=64)
files = sorted(folder.rglob("*.dcm"))
values = [dicom.read_pixel_array(path) for path in files]
assert len(values) == 5 and all(array.shape == (64, 64) for array in values)

import kafka.record.default_records as records
import featherweight.apps.fraud.kafka.clients
assert records.calc_crc32c(memoryview(bytearray(b"123456789"))) == 0xE3069283  # RFC 3720, B.4
assert records.calc_crc32c is featherweight.apps.fraud.kafka.clients._checksum
"""


def test_both_apps_do_without_what_was_removed(tmp_path: Path) -> None:
    """The development environment may have it from earlier; pydicom and kafka-python take it where it is."""
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
