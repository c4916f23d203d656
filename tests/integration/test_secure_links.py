"""Links to broker and databases that encrypt, check whom they reach, and show a certificate."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any
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


def files_of(ca: Authority, shown: PemFiles | None = None) -> TlsFiles:
    if shown is None:
        return TlsFiles(str(ca.ca))
    return TlsFiles(str(ca.ca), str(shown.certificate), str(shown.key))


def peer_of(url: str, files: TlsFiles) -> str:
    async def connect() -> str:
        session = await open_session(AmqpParameters(url, 10, files), "test")
        await session.close()
        return session.peer

    return asyncio.run(connect())


def check_refused(url: str, files: TlsFiles, expected: str) -> None:
    with pytest.raises(ConnectionLostError) as raised:
        peer_of(url, files)
    text = str(raised.value)
    assert expected in text
    assert "\n" not in text
    assert url.split(":")[2].partition("@")[0] not in text


def test_a_broker_and_its_clients_know_each_other_by_their_certificates(
    secure_rabbitmq: RabbitMqNode, authorities: Authorities
) -> None:
    url, ours, stranger = secure_rabbitmq.url(), authorities.ours, authorities.stranger
    client = ours.issue("client")
    assert peer_of(url, files_of(ours, client)) == f"127.0.0.1:{urlsplit(url).port}"
    # A broker of another authority; without files the system's authorities count.
    check_refused(url, files_of(stranger, client), "CERTIFICATE_VERIFY_FAILED")
    check_refused(url, TlsFiles(), "CERTIFICATE_VERIFY_FAILED")
    # The broker takes no client without a certificate, or with a stranger's.
    check_refused(url, files_of(ours), "ALERT_CERTIFICATE_REQUIRED")
    check_refused(url, files_of(ours, stranger.issue("client")), "ALERT_UNKNOWN_CA")
    # Its name is checked, without files too.
    by_name = url.replace("@127.0.0.1:", "@localhost:")
    check_refused(by_name, files_of(ours, client), "Hostname mismatch")
    check_refused(by_name, TlsFiles(), "CERTIFICATE_VERIFY_FAILED")


def test_renewed_files_are_used_at_the_next_connection(
    secure_rabbitmq: RabbitMqNode, authorities: Authorities, tmp_path: Path
) -> None:
    url, shown = secure_rabbitmq.url(), [tmp_path / "shown.crt", tmp_path / "shown.key"]
    files = TlsFiles(str(authorities.ours.ca), *map(str, shown))
    for authority in (authorities.stranger, authorities.ours):
        issued = authority.issue("renewed")
        shown[0].write_bytes(issued.certificate.read_bytes())
        shown[1].write_bytes(issued.key.read_bytes())
        if authority is authorities.ours:
            peer_of(url, files)
        else:
            check_refused(url, files, "ALERT_UNKNOWN_CA")
    shown[0].unlink()
    check_refused(url, files, f"tls_cert_file: {shown[0]} cannot be read")


def refusal_of_storage(**settings: Any) -> str:
    with pytest.raises(StorageUnavailableError) as raised:
        get_provenance_storage(**settings).open()
    return str(raised.value)


def check_reached(**settings: Any) -> None:
    with get_provenance_storage(**settings) as storage:
        assert storage.with_path()


def test_postgresql_and_its_clients_know_each_other_by_their_certificates(
    secure_postgresql: PostgreSqlCluster, authorities: Authorities
) -> None:
    dsn = secure_postgresql.create_database(f"links_{secrets.token_hex(4)}")
    for db in (dsn, parse_dsn(dsn)):
        check_reached(cls="postgresql", db=db)
    other_name, stranger = (
        str(authority.issue(name).both)
        for authority, name in ((authorities.ours, "somebody-else"), (authorities.stranger, "provgate"))
    )
    refused: list[tuple[dict[str, str], str]] = [
        ({"sslrootcert": str(authorities.stranger.ca)}, "certificate verify failed"),
        ({"host": "localhost", "hostaddr": "127.0.0.1"}, 'does not match host name "localhost"'),
        ({"sslcert": "/none", "sslkey": "/none"}, "certificate"),
        ({"sslcert": other_name, "sslkey": other_name}, "authentication failed"),
        ({"sslcert": stranger, "sslkey": stranger}, "unknown ca"),
        ({"sslmode": "disable"}, "no encryption"),
    ]
    for changes, expected in refused:
        text = refusal_of_storage(cls="postgresql", db=make_dsn(dsn, **changes))
        assert expected in text
        assert parse_dsn(dsn)["password"] not in text


def test_mongodb_and_its_clients_know_each_other_by_their_certificates(
    secure_mongodb: MongoDbServer, authorities: Authorities
) -> None:
    url, ours, stranger = secure_mongodb.url("links"), authorities.ours, authorities.stranger
    mapping = {
        "host": "127.0.0.1",
        "port": secure_mongodb.port,
        "dbname": "links",
        "tls": True,
        "tlsCAFile": str(ours.ca),
        "tlsCertificateKeyFile": str(ours.issue("client").both),
    }
    check_reached(cls="mongodb", db=url)
    check_reached(cls="mongodb", db=mapping)
    by_name = url.replace("//127.0.0.1:", "//localhost:")
    for changed, expected in (
        (url.replace(str(ours.ca), str(stranger.ca)), "certificate verify failed"),
        (f"{by_name}&directConnection=true", "Hostname mismatch"),
        # The server closes the connection without an alert, or with one; either may come too late to be read.
        (url.partition("&tlsCertificateKeyFile")[0], "127.0.0.1"),
        (f"{url.rpartition('=')[0]}={stranger.issue('client').both}", "127.0.0.1"),
    ):
        assert expected in refusal_of_storage(cls="mongodb", db=changed, connect_timeout_s=2)
