from __future__ import annotations

from pathlib import Path

import pytest

from featherweight.apps.fraud.kafka.clients import read_security
from featherweight.apps.fraud.kafka.member import Member
from featherweight.apps.fraud.kafka.topics import CONNECT_MS
from featherweight.core.errors import UsageError


def test_what_the_file_says_opens_every_client(tmp_path: Path) -> None:
    path = tmp_path / "security.toml"
    path.write_text('security_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\nsasl_plain_password = "pw"\n')
    assert Member("host:1", security=read_security(path)).connection == {
        "bootstrap_servers": "host:1",
        "bootstrap_timeout_ms": CONNECT_MS,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_password": "pw",
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('sasl_plain_passwort = "s3cret"', "sasl_plain_passwort"),
        ('security_protocol = "s3cret"', "security_protocol"),
        ("sasl_plain_password = 5", "sasl_plain_password"),
        ('sasl_plain_password = "s3cret', "not TOML"),
        ("bootstrap_servers = 's3cret'", "bootstrap_servers"),
    ],
)
def test_a_wrong_setting_is_named_and_no_value_is_shown(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "security.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named) as found:
        read_security(path)
    assert "s3cret" not in str(found.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "security.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        read_security(path)
