"""Values without the secrets in them. What is not known to be harmless is taken for a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

REDACTED: Final = "***"

# What a name has in it whose value is a secret, spelled without case and without what is no letter.
_SECRET_WORDS: Final = ("pass", "pwd", "secret", "token", "credential", "privatekey", "apikey")

# The names of connection strings and mappings whose values are shown (libpq, MongoDB), spelled in the same way.
_HARMLESS_NAMES: Final = (
    "host hostaddr port dbname database user username applicationname appname connecttimeout tcpusertimeout "
    "clientencoding targetsessionattrs loadbalancehosts channelbinding requireauth gssencmode keepalives "
    "keepalivesidle keepalivesinterval keepalivescount sslmode sslnegotiation sslrootcert sslcert sslkey sslcrl "
    "sslcrldir sslsni sslcertmode sslminprotocolversion sslmaxprotocolversion tls tlscafile tlscertificatekeyfile "
    "tlscrlfile tlsinsecure tlsallowinvalidcertificates tlsallowinvalidhostnames ssl replicaset authsource "
    "authmechanism directconnection loadbalanced readpreference readconcernlevel w journal wtimeoutms retrywrites "
    "retryreads maxpoolsize minpoolsize maxidletimems serverselectiontimeoutms connecttimeoutms sockettimeoutms "
    "heartbeatfrequencyms compressors heartbeat connectionattempts retrydelay sockettimeout "
)
_HARMLESS: Final = frozenset(_HARMLESS_NAMES.split())

_HOST: Final = r"(?:[A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]|/[A-Za-z0-9_./-]*|%2[Ff][A-Za-z0-9_.%-]*)(?::[0-9]*)?"
_HOSTS: Final = re.compile(rf"{_HOST}(?:,{_HOST})*")
_PATH: Final = re.compile(r"[A-Za-z0-9_.%~-]*")
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>.*)", re.DOTALL)

# libpq documentation, 34.1.1.1: keyword/value connection strings.
_KEYWORD: Final = re.compile(
    r"\s*(?P<name>\w+)\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)", re.DOTALL
)


def redacted(name: str, value: Any) -> Any:
    """Returns the value of a setting as it may be shown.

    Args:
        name: of the setting in its section.
        value: what it is.
    """
    if value is None or isinstance(value, bool):
        return value
    if _is_secret(name):
        return REDACTED
    if name == "db":
        return _of_database(value)
    if isinstance(value, str) and (name == "url" or "://" in value):
        return _of_url(value)
    if isinstance(value, Mapping):
        return {key: redacted(str(key), each) for key, each in value.items()}
    if isinstance(value, list):
        return [redacted(name, each) for each in value]
    return value


def _of_database(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _if_harmless(str(key), each) for key, each in value.items()}
    if not isinstance(value, str):
        return REDACTED
    return _of_url(value) if "://" in value else _of_keywords(value)


def _of_url(text: str) -> str:
    """Returns an address without the user, and without options that are not known to be harmless.

    All before the last @ goes, wherever in the address that is: a password may hold what ends it in a URL.
    """
    url = _URL.fullmatch(text)
    scheme, rest = (url["scheme"], url["rest"]) if url else ("", text)
    user, at, place = rest.rpartition("@")
    if "?" in user:
        # An @ in an option, or a ? in a password: nobody can tell.
        return scheme + REDACTED
    place, mark, query = place.partition("?")
    hosts, slash, path = (place, "", "") if place.startswith("/") else place.partition("/")
    if not _HOSTS.fullmatch(hosts) or not _PATH.fullmatch(path):
        return scheme + REDACTED
    options = [_option(each) for each in query.split("&")] if mark else []
    return f"{scheme}{REDACTED if user else ''}{at}{hosts}{slash}{path}{mark}{'&'.join(options)}"


def _option(text: str) -> str:
    name, _, value = text.partition("=")
    shown = _if_harmless(unquote(name), value)
    if ";" in text or "=" not in text:
        # To some it ends an option, to others it is a part of its value.
        return REDACTED
    return text if shown is value else f"{name if name.isalnum() else REDACTED}={REDACTED}"


def _of_keywords(text: str) -> str:
    shown, end = [], 0
    while found := _KEYWORD.match(text, end):
        shown.append(f"{found['name']}={_if_harmless(found['name'], found['value'])}")
        end = found.end()
    return REDACTED if text[end:].strip() else " ".join(shown)


def _if_harmless(name: str, value: Any) -> Any:
    if _plain(name) not in _HARMLESS or not isinstance(value, str | int | float):
        return REDACTED
    # A value may be a connection string of its own, as libpq's `dbname`.
    return REDACTED if isinstance(value, str) and re.search(r"[=@\s]|://", value) else value


def _is_secret(name: str) -> bool:
    # `token_file` and the like name a file; what the file holds is read into `token`.
    return not name.endswith("_file") and any(word in _plain(name) for word in _SECRET_WORDS)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
