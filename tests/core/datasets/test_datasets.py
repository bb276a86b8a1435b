"""The catalogue and the download, against a real HTTP server on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import resource
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from featherweight.core.bundled import data_directory
from featherweight.core.datasets.catalogue import (
    cache_directory,
    dataset,
    fetch,
    local_copy,
    parse_catalogue,
    read_catalogue,
)
from featherweight.core.datasets.cli import app
from featherweight.core.datasets.download import ATTEMPTS, Expected, check_address, copy_file, fetch_file
from featherweight.core.errors import DataError, OutputError, UsageError
from tests import datasets

CONTENT = bytes(range(256)) * 4096  # 1 MiB
OTHER = CONTENT[::-1]


def expected_of(content: bytes, *, md5: bool = True) -> Expected:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest() if md5 else ""
    return Expected(len(content), hashlib.sha256(content).hexdigest(), digest)


@dataclass
class Site:
    """What the server does: `drops` says after how many bytes it cuts each of the next answers."""

    content: bytes = CONTENT
    etag: str = '"one"'
    ranges: bool = True
    lengths: bool = True
    status: int = 200
    location: str = ""
    drops: list[int] = field(default_factory=list)
    after_drop: Site | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.requests.append(dict(self.headers))
        if site.location or site.status != 200:
            self.send_response(302 if site.location else site.status)
            self.send_header("Location", site.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, start = site.content, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range", site.etag) == site.etag
        if asked and site.ranges and unchanged:
            start = int(asked[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if site.drops:
            self.wfile.write(body[start : start + site.drops.pop(0)])
            if site.after_drop is not None:
                site.content, site.etag = site.after_drop.content, site.after_drop.etag
            self.close_connection = True
            return
        self.wfile.write(body[start:])

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": served}))
    served.url = f"http://127.0.0.1:{server.server_address[1]}/set.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def download(site: Site, target: Path, content: bytes = CONTENT) -> list[int]:
    heard: list[int] = []
    fetch_file(site.url, target, expected_of(content), lambda stage, done, total: heard.append(done), pause_s=0)
    return heard


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_a_download_arrives_whole_and_leaves_nothing_beside_it(site: Site, tmp_path: Path) -> None:
    heard = download(site, tmp_path / "set.bin")
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert heard == sorted(heard)
    assert heard[-1] == len(CONTENT)
    assert leftovers(tmp_path / "set.bin") == []


def test_a_dropped_connection_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    site.drops = [300_000, 1, 400_000]
    download(site, tmp_path / "set.bin")
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert [r.get("Range") for r in site.requests] == [None, "bytes=300000-", "bytes=300001-", "bytes=700001-"]
    assert {r.get("If-Range") for r in site.requests[1:]} == {'"one"'}


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "set.bin"
    site.drops = [500_000] + [0] * 5
    with pytest.raises(DataError, match=r"500000 of 1048576 bytes .* run the same command again"):
        download(site, target)
    assert leftovers(target) == ["set.bin.part", "set.bin.part.json"]
    assert not target.exists()
    site.drops, before = [], len(site.requests)
    download(site, target)
    assert target.read_bytes() == CONTENT
    assert [r.get("Range") for r in site.requests[before:]] == ["bytes=500000-"]


def test_a_server_without_ranges_starts_anew(site: Site, tmp_path: Path) -> None:
    site.ranges, site.drops = False, [300_000]
    download(site, tmp_path / "set.bin")
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert len(site.requests) == 2


def test_a_file_that_changed_between_the_parts_is_taken_from_its_start(site: Site, tmp_path: Path) -> None:
    site.content, site.drops, site.after_drop = OTHER, [300_000], Site(CONTENT, '"two"')
    download(site, tmp_path / "set.bin")
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert site.requests[1]["If-Range"] == '"one"'


def test_a_file_that_changed_without_a_word_is_found_by_its_digest(site: Site, tmp_path: Path) -> None:
    site.etag, site.content, site.drops, site.after_drop = "", OTHER, [300_000], Site(CONTENT, "")
    download(site, tmp_path / "set.bin")
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert [r.get("Range") for r in site.requests] == [None, "bytes=300000-", None]


def test_a_weak_tag_is_not_used_to_go_on(site: Site, tmp_path: Path) -> None:
    site.etag, site.drops = 'W/"one"', [300_000]
    download(site, tmp_path / "set.bin")
    assert "If-Range" not in site.requests[1]


def test_wrong_bytes_are_refused_and_nothing_is_left(site: Site, tmp_path: Path) -> None:
    site.content = OTHER
    found, wanted = hashlib.sha256(OTHER).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(DataError, match=f"found sha256 {found}, expected {wanted}"):
        download(site, tmp_path / "set.bin")
    assert list(tmp_path.iterdir()) == []


def test_another_length_is_refused_before_it_is_downloaded(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT + b"x"
    with pytest.raises(DataError, match="offers 1048577 bytes, expected 1048576"):
        download(site, tmp_path / "set.bin")
    assert list(tmp_path.iterdir()) == []


def test_an_endless_answer_is_cut_off(site: Site, tmp_path: Path) -> None:
    site.content, site.lengths, site.etag = CONTENT * 20, False, ""
    heard: list[int] = []
    with pytest.raises(DataError, match="more than the expected 1048576 bytes"):
        fetch_file(
            site.url,
            tmp_path / "set.bin",
            expected_of(CONTENT),
            lambda stage, done, total: heard.append(done),
            pause_s=0,
        )
    assert heard[-1] < 2 * len(CONTENT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "message", "tries"), [(404, "HTTP status 404", 1), (503, "HTTP status 503", ATTEMPTS)]
)
def test_a_failing_server_is_reported(site: Site, tmp_path: Path, status: int, message: str, tries: int) -> None:
    site.status = status
    with pytest.raises(DataError, match=message):
        download(site, tmp_path / "set.bin")
    assert len(site.requests) == tries


def test_a_redirect_to_plain_http_elsewhere_is_refused(site: Site, tmp_path: Path) -> None:
    site.location = "http://example.invalid/set.bin"
    with pytest.raises(UsageError, match="only https"):
        download(site, tmp_path / "set.bin")


def test_a_redirect_loop_ends(site: Site, tmp_path: Path) -> None:
    site.location = "/set.bin"
    with pytest.raises(DataError, match="redirects"):
        download(site, tmp_path / "set.bin")


@pytest.mark.parametrize("url", ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "https://", "a"])
def test_only_https_is_fetched(url: str) -> None:
    with pytest.raises(UsageError, match="only https"):
        check_address(url)


def test_a_part_that_is_complete_is_checked_without_asking_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.bin.part").write_bytes(CONTENT)
    download(site, tmp_path / "set.bin")
    assert site.requests == []


def test_a_copy_is_checked(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(CONTENT)
    copy_file(tmp_path / "good", tmp_path / "copy", expected_of(CONTENT))
    assert (tmp_path / "copy").read_bytes() == CONTENT
    (tmp_path / "bad").write_bytes(CONTENT[:-1] + b"\0")
    with pytest.raises(DataError, match="found sha256"):
        copy_file(tmp_path / "bad", tmp_path / "copy2", expected_of(CONTENT))
    (tmp_path / "short").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="found 1048575 bytes, expected 1048576"):
        copy_file(tmp_path / "short", tmp_path / "copy3", expected_of(CONTENT))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "copy", "good", "short"]


def test_an_output_that_takes_no_more_is_told(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(CONTENT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            copy_file(tmp_path / "good", tmp_path / "set.bin", expected_of(CONTENT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "set.bin").exists()


def test_the_catalogue_is_complete_and_reads_back() -> None:
    catalogue = read_catalogue()
    assert list(catalogue) == [
        "pneumoniamnist",
        "chest_xray_224",
        "chest_xray_fullsize_200",
        "dicom_conformance",
        "creditcard",
        "fraud_handbook",
    ]
    for entry in catalogue.values():
        assert entry.url or "local copy only" in entry.notes
        assert entry.licence
        assert entry.citation
    assert data_directory().joinpath("catalogue.toml").is_file()


@pytest.mark.parametrize("name", list(read_catalogue()))
def test_the_catalogue_describes_the_real_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = datasets.local_copy(name)
    monkeypatch.setenv("FEATHERWEIGHT_DATA", str(path.parent))
    assert local_copy(name) == path


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_catalogue_reader(content: bytes) -> None:
    with contextlib.suppress(DataError):
        assert isinstance(parse_catalogue(content), dict)


def test_a_catalogue_with_a_path_for_a_file_name_is_refused() -> None:
    good = (data_directory() / "catalogue.toml").read_text()
    assert parse_catalogue(good.encode())
    for fault in ("../evil", "/etc/passwd", ".hidden", "a/b"):
        with pytest.raises(DataError, match="not a valid catalogue"):
            parse_catalogue(good.replace("pneumoniamnist.npz", fault, 1).encode())
    with pytest.raises(DataError, match="expected 1"):
        parse_catalogue(good.replace("version = 1", "version = 2").encode())


def test_fetch_from_a_folder_then_found_then_damaged(data_folder: Path) -> None:
    source = datasets.local_copy("pneumoniamnist")
    entry = read_catalogue()["pneumoniamnist"]
    assert local_copy("pneumoniamnist") is None
    assert fetch(entry, data_folder, source=source.parent).source == "local"
    assert fetch(entry, data_folder, source=source.parent).source == "here"
    found = local_copy("pneumoniamnist")
    assert found is not None
    with found.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\xff\x00")
    with pytest.raises(DataError, match="found sha256"):
        local_copy("pneumoniamnist")
    assert fetch(entry, data_folder, source=source).source == "local"
    assert local_copy("pneumoniamnist") == found


def test_a_set_without_an_address_says_what_to_do(data_folder: Path) -> None:
    with pytest.raises(UsageError, match="--from DIR"):
        fetch(dataset("chest_xray_224"), data_folder)
    with pytest.raises(DataError, match="no such file"):
        fetch(dataset("chest_xray_224"), data_folder, source=data_folder)
    with pytest.raises(UsageError, match="pneumoniamnist"):
        dataset("nonesuch")
    (data_folder / "file").touch()
    with pytest.raises(OutputError, match="--to"):
        fetch(dataset("chest_xray_224"), data_folder / "file" / "deeper")


def test_the_cache_folder_is_the_named_one(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory() == data_folder
    monkeypatch.delenv("FEATHERWEIGHT_DATA")
    assert cache_directory().parts[-2:] == ("data", "cache")


def test_list_and_fetch_on_the_command_line(data_folder: Path) -> None:
    runner = CliRunner()
    listed = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert [row["name"] for row in listed] == list(read_catalogue())
    assert all(row["path"] is None for row in listed)
    assert "its publisher" in runner.invoke(app, ["list"]).stdout
    source = datasets.local_copy("pneumoniamnist")
    result = runner.invoke(app, ["fetch", "pneumoniamnist", "--from", str(source.parent)])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(data_folder / "pneumoniamnist.npz")
    assert "sha256 checked" in result.stderr
    assert isinstance(runner.invoke(app, ["fetch", "nonesuch"]).exception, UsageError)
