"""The TLS files of a connection to the broker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from provgate_broker.settings import PATH, RabbitMqSettings, amqp_parameters
from provgate_runtime import ConfigurationError, convert
from tests.support.credentials import Authority, PemFiles

URL = "amqps://user:secret-of-the-url@localhost/"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "ours")


@pytest.fixture(scope="module")
def shown(authority: Authority) -> PemFiles:
    return authority.issue("client")


def refusal(files: Mapping[str, Path], url: str = URL) -> str:
    settings = convert({"url": url} | {name: str(file) for name, file in files.items()}, RabbitMqSettings, PATH)
    with pytest.raises(ConfigurationError) as raised:
        amqp_parameters(settings)
    assert "secret" not in raised.value.message
    return raised.value.message


def test_matching_files_are_used(authority: Authority, shown: PemFiles) -> None:
    settings = RabbitMqSettings(
        url=URL, tls_ca_file=str(authority.ca), tls_cert_file=str(shown.certificate), tls_key_file=str(shown.key)
    )
    options = amqp_parameters(settings).pika("test").ssl_options
    assert options is not None
    assert options.context.check_hostname
    assert len(options.context.get_ca_certs()) == 1


def test_each_connection_reads_the_files(authority: Authority) -> None:
    parameters = amqp_parameters(RabbitMqSettings(url=URL, tls_ca_file=str(authority.ca)))
    first, second = (parameters.pika("test").ssl_options for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.context is not second.context


def test_amqps_without_files_uses_the_systems_authorities() -> None:
    options = amqp_parameters(RabbitMqSettings(url=URL)).pika("test").ssl_options
    assert options is not None
    assert options.context.check_hostname
    assert amqp_parameters(RabbitMqSettings(url="amqp://localhost/")).pika("test").ssl_options is None


def test_files_that_do_not_fit_together_are_refused(authority: Authority, shown: PemFiles) -> None:
    plain = refusal({"tls_ca_file": authority.ca}, "amqp://user:secret@localhost/")
    assert "tls_ca_file, tls_cert_file and tls_key_file need an amqps:// URL" in plain
    for files in ({"tls_cert_file": shown.certificate}, {"tls_key_file": shown.key}):
        assert refusal(files) == "provenance.rabbitmq.tls_cert_file and tls_key_file: give both or neither"
    other = refusal({"tls_cert_file": shown.certificate, "tls_key_file": authority.issue("other").key})
    assert "are not a PEM certificate and its private key" in other


@pytest.mark.parametrize("name", ["tls_ca_file", "tls_cert_file", "tls_key_file"])
def test_a_wrong_file_is_named(authority: Authority, shown: PemFiles, tmp_path: Path, name: str) -> None:
    files = {"tls_ca_file": authority.ca, "tls_cert_file": shown.certificate, "tls_key_file": shown.key}
    other = tmp_path / "other"
    assert refusal(files | {name: other}).startswith(f"provenance.rabbitmq.{name}: {other} cannot be read: No ")
    other.write_text("secret, and not PEM")
    text = refusal(files | {name: other})
    assert text.startswith("provenance.rabbitmq.tls_")
    assert name in text
    assert str(other) in text
