"""No secret is shown, however it is written."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_operations.config.redaction import REDACTED, redacted

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", "amqp://user:hunter2@host:5672/%2f"),
        ("url", "amqp://hunter2@host/"),
        ("url", "AMQPS://u:hunter2@[::1]:5671/v?heartbeat=3"),
        ("url", "amqp://u:hun/ter2@hunter2@host/"),
        ("url", "amqp://u:a/hunter2@host/v"),
        ("url", "amqp://u:a?hunter2@host/v"),
        ("url", "amqp://u:a#hunter2@host/v"),
        ("url", "amqp://u:a/hunter2%40host/v"),
        ("url", "amqp://user:hunter2"),
        ("url", "amqp://host/v?auth=hunter2"),
        ("url", "amqp://host/v?ssl_options={'password':'hunter2'}"),
        ("url", "amqp://host/v#hunter2"),
        ("url", "amqp://host/v?password=x;hunter2"),
        ("url", "amqp://host/v?heartbeat=3@hunter2"),
        ("url", "amqp://host/v?x=1&hunter2"),
        ("url", "u:hunter2@host:1"),
        ("db", "postgresql://u:hunter2@host/d"),
        ("db", "postgres://u:hunter2@h1:1,h2:2/d?sslmode=require"),
        ("db", "postgresql://host/d?password=hunter2"),
        ("db", "postgresql://host/d?sslpassword=hunter2&sslmode=require"),
        ("db", "postgresql://host/d?p%61ssword=hunter2"),
        ("db", "host=h password=hunter2"),
        ("db", "host=h password = 'hunter2 \\' x'"),
        ("db", "host=h sslpassword='a hunter2'"),
        ("db", "host=h PassWord=hunter2"),
        ("db", "host=h passfile=hunter2"),
        ("db", "host=h options='-c my.secret=hunter2'"),
        ("db", "dbname='postgresql://u:hunter2@h/d'"),
        ("db", "dbname='host=h password=hunter2'"),
        ("db", "hunter2"),
        ("db", {"host": "h", "password": SECRET}),
        ("db", {"host": "h", "PASSWORD": SECRET}),
        ("db", {"host": "h", "pass_word": SECRET}),
        ("db", {"host": "h", "sslpassword": SECRET}),
        ("db", {"host": "h", "tlsCertificateKeyFilePassword": SECRET}),
        ("db", {"host": "h", "authMechanismProperties": "AWS_SESSION_TOKEN:hunter2"}),
        ("db", {"host": "h", "passwrod": SECRET}),
        ("db", {"host": "mongodb://u:hunter2@h/d"}),
        ("db", {"host": "h", "port": [SECRET]}),
        ("db", [SECRET]),
        ("db", "mongodb://u:hunter2@h1:1,h2:2/d?replicaSet=r"),
        ("db", "mongodb+srv://u:hunter2@h/d?w=majority;tlsCertificateKeyFilePassword=hunter2"),
        ("token", SECRET),
        ("Token", SECRET),
        ("api_token", SECRET),
        ("password", SECRET),
        ("passphrase", SECRET),
        ("client-secret", SECRET),
        ("statsd", "udp://u:hunter2@h:1"),
        ("anything", {"deep": [{"password": SECRET}, "amqp://u:hunter2@h"]}),
    ],
)
def test_a_secret_is_not_shown(name: str, value: Any) -> None:
    assert SECRET not in json.dumps(redacted(name, value))
    assert REDACTED in json.dumps(redacted(name, value))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("url", "localhost:50051", "localhost:50051"),
        ("url", "grpcs://gateway.example:443", "grpcs://gateway.example:443"),
        ("url", "amqps://u:p@host:5671/%2f", "amqps://***@host:5671/%2f"),
        ("url", "amqp://host/v?heartbeat=3", "amqp://host/v?heartbeat=3"),
        ("db", "postgresql://u:p@h/d?sslmode=verify-full", "postgresql://***@h/d?sslmode=verify-full"),
        ("db", "host=h user=u password=p sslmode=require", "host=h user=u password=*** sslmode=require"),
        ("db", {"host": "h", "port": 5432, "password": "p"}, {"host": "h", "port": 5432, "password": REDACTED}),
        ("db", "mongodb://u:p@a:1,b:2/d?replicaSet=r&x=y", "mongodb://***@a:1,b:2/d?replicaSet=r&x=***"),
        ("db", "mongodb://localhost/provenance", "mongodb://localhost/provenance"),
        ("tokens_file", "/etc/provgate/tokens", "/etc/provgate/tokens"),
        ("token", None, None),
        ("tls_key", "/etc/key.pem", "/etc/key.pem"),
        ("ranges", {"content": 16}, {"content": 16}),
        ("statsd", "127.0.0.1:8125", "127.0.0.1:8125"),
        ("insecure", True, True),
    ],
)
def test_the_rest_is_shown(name: str, value: Any, shown: Any) -> None:
    assert redacted(name, value) == shown


passwords = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=4).map(lambda text: f"{text}Zq7")


@given(passwords)
def test_no_password_of_a_url_is_shown(password: str) -> None:
    for written in (password, quote(password, safe="")):
        assert "Zq7" not in redacted("url", f"amqp://user:{written}@broker.example:5672/%2f")
        assert "Zq7" not in redacted("db", f"postgresql://user:{written}@db.example/provenance")
        assert "Zq7" not in redacted("db", f"mongodb://user:{written}@db.example/provenance?w=majority")


@given(passwords)
def test_no_password_of_keywords_is_shown(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    assert "Zq7" not in redacted("db", f"host=db.example password='{quoted}' dbname=provenance")
