"""Links to broker and databases that encrypt, check whom they reach, and show a certificate."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from provgate_broker.amqp.connection import AmqpParameters, open_session
from provgate_broker.amqp.tls import TlsFiles
from provgate_broker.errors import ConnectionLostError
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_storage import get_provenance_storage
from provgate_storage.errors import StorageUnavailableError
from tests.support.credentials import Authority, PemFiles
from tests.support.fix_secure_stack import Authorities


def _files(ca: Authority, shown: PemFiles | None) -> TlsFiles:
    if shown is None:
        return TlsFiles(str(ca.ca))
    return TlsFiles(str(ca.ca), str(shown.certificate), str(shown.key))


def _connect(parameters: AmqpParameters) -> str:
    async def connect() -> str:
        session = await open_session(parameters, "test")
        await session.close()
        return session.peer

    return asyncio.run(connect())


def _refusal(parameters: AmqpParameters, url: str) -> str:
    with pytest.raises(ConnectionLostError) as raised:
        _connect(parameters)
    text = str(raised.value)
    assert "\n" not in text
    assert url.split(":")[2].partition("@")[0] not in text
    return text


def _refused_with(url: str, files: TlsFiles) -> str:
    return _refusal(AmqpParameters(url, 10, files), url)


def test_the_broker_is_reached_with_a_certificate(secure_rabbitmq: RabbitMqNode, authorities: Authorities) -> None:
    files = _files(authorities.ours, authorities.ours.issue("client"))
    peer = _connect(AmqpParameters(secure_rabbitmq.url(), 10, files))
    assert peer == f"127.0.0.1:{urlsplit(secure_rabbitmq.url()).port}"


def test_a_broker_of_another_authority_is_refused(secure_rabbitmq: RabbitMqNode, authorities: Authorities) -> None:
    shown = authorities.ours.issue("client")
    assert "CERTIFICATE_VERIFY_FAILED" in _refused_with(secure_rabbitmq.url(), _files(authorities.stranger, shown))


def test_without_files_the_system_s_authorities_count(secure_rabbitmq: RabbitMqNode) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in _refused_with(secure_rabbitmq.url(), TlsFiles())


def test_the_broker_refuses_who_shows_no_certificate(secure_rabbitmq: RabbitMqNode, authorities: Authorities) -> None:
    assert "ALERT_CERTIFICATE_REQUIRED" in _refused_with(secure_rabbitmq.url(), _files(authorities.ours, None))


def test_the_broker_refuses_a_stranger_s_certificate(secure_rabbitmq: RabbitMqNode, authorities: Authorities) -> None:
    shown = authorities.stranger.issue("client")
    assert "ALERT_UNKNOWN_CA" in _refused_with(secure_rabbitmq.url(), _files(authorities.ours, shown))


def test_the_broker_s_name_is_checked(secure_rabbitmq: RabbitMqNode, authorities: Authorities) -> None:
    url = secure_rabbitmq.url().replace("@127.0.0.1:", "@localhost:")
    files = _files(authorities.ours, authorities.ours.issue("client"))
    assert "Hostname mismatch" in _refused_with(url, files)
    # What a URL names without files is checked as well.
    assert "CERTIFICATE_VERIFY_FAILED" in _refused_with(url, TlsFiles())


def test_renewed_files_are_used_at_the_next_connection(
    secure_rabbitmq: RabbitMqNode, authorities: Authorities, tmp_path: Path
) -> None:
    shown = [tmp_path / "shown.crt", tmp_path / "shown.key"]
    parameters = AmqpParameters(
        secure_rabbitmq.url(), 10, TlsFiles(str(authorities.ours.ca), str(shown[0]), str(shown[1]))
    )
    for authority, taken in ((authorities.stranger, False), (authorities.ours, True)):
        issued = authority.issue("renewed")
        shown[0].write_bytes(issued.certificate.read_bytes())
        shown[1].write_bytes(issued.key.read_bytes())
        if taken:
            _connect(parameters)
        else:
            assert "ALERT_UNKNOWN_CA" in _refusal(parameters, secure_rabbitmq.url())
    shown[0].unlink()
    assert f"tls_cert_file: {shown[0]} cannot be read" in _refusal(parameters, secure_rabbitmq.url())


@pytest.fixture(scope="module")
def postgresql_dsn(secure_postgresql: PostgreSqlCluster) -> str:
    return secure_postgresql.create_database(f"links_{secrets.token_hex(4)}")


def _refused_by_postgresql(dsn: str) -> str:
    with pytest.raises(StorageUnavailableError) as raised:
        get_provenance_storage(cls="postgresql", db=dsn).open()
    assert parse_dsn(dsn)["password"] not in str(raised.value)
    return str(raised.value)


def test_postgresql_takes_a_string_and_a_mapping(postgresql_dsn: str) -> None:
    for db in (postgresql_dsn, parse_dsn(postgresql_dsn)):
        with get_provenance_storage(cls="postgresql", db=db) as storage:
            assert storage.with_path()


def test_postgresql_of_another_authority_is_refused(postgresql_dsn: str, authorities: Authorities) -> None:
    assert "certificate verify failed" in _refused_by_postgresql(
        make_dsn(postgresql_dsn, sslrootcert=str(authorities.stranger.ca))
    )


def test_postgresql_s_name_is_checked(postgresql_dsn: str) -> None:
    named = make_dsn(postgresql_dsn, host="localhost", hostaddr="127.0.0.1")
    assert 'does not match host name "localhost"' in _refused_by_postgresql(named)


def test_postgresql_refuses_who_shows_no_certificate_of_ours(postgresql_dsn: str, authorities: Authorities) -> None:
    assert "certificate" in _refused_by_postgresql(make_dsn(postgresql_dsn, sslcert="/none", sslkey="/none"))
    other_name = str(authorities.ours.issue("somebody-else").both)
    assert "authentication failed" in _refused_by_postgresql(
        make_dsn(postgresql_dsn, sslcert=other_name, sslkey=other_name)
    )
    stranger = str(authorities.stranger.issue("provgate").both)
    assert "unknown ca" in _refused_by_postgresql(make_dsn(postgresql_dsn, sslcert=stranger, sslkey=stranger))


def test_postgresql_refuses_plain_text(postgresql_dsn: str) -> None:
    assert "no encryption" in _refused_by_postgresql(make_dsn(postgresql_dsn, sslmode="disable"))


def _refused_by_mongodb(url: str) -> str:
    with pytest.raises(StorageUnavailableError) as raised:
        get_provenance_storage(cls="mongodb", db=url, connect_timeout_s=2).open()
    return str(raised.value)


def test_mongodb_is_reached_with_a_certificate(secure_mongodb: MongoDbServer) -> None:
    with get_provenance_storage(cls="mongodb", db=secure_mongodb.url("links")) as storage:
        assert storage.with_path()


def test_mongodb_takes_a_mapping(secure_mongodb: MongoDbServer, authorities: Authorities) -> None:
    db = {
        "host": "127.0.0.1",
        "port": secure_mongodb.port,
        "dbname": "links",
        "tls": True,
        "tlsCAFile": str(authorities.ours.ca),
        "tlsCertificateKeyFile": str(authorities.ours.issue("client").both),
    }
    with get_provenance_storage(cls="mongodb", db=db) as storage:
        assert storage.with_path()


def test_mongodb_of_another_authority_is_refused(secure_mongodb: MongoDbServer, authorities: Authorities) -> None:
    url = secure_mongodb.url("links").replace(str(authorities.ours.ca), str(authorities.stranger.ca))
    assert "certificate verify failed" in _refused_by_mongodb(url)


def test_mongodb_s_name_is_checked(secure_mongodb: MongoDbServer) -> None:
    url = secure_mongodb.url("links").replace("//127.0.0.1:", "//localhost:")
    assert "Hostname mismatch" in _refused_by_mongodb(f"{url}&directConnection=true")


def test_mongodb_refuses_who_shows_no_certificate_of_ours(
    secure_mongodb: MongoDbServer, authorities: Authorities
) -> None:
    url = secure_mongodb.url("links")
    # The server closes the connection without an alert, or with one; either may come too late to be read.
    assert "127.0.0.1" in _refused_by_mongodb(url.partition("&tlsCertificateKeyFile")[0])
    stranger = str(authorities.stranger.issue("client").both)
    given = url.rpartition("=")[0]
    assert "127.0.0.1" in _refused_by_mongodb(f"{given}={stranger}")
