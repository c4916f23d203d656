"""Access control as the settings ask for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from provgate_config import ConfigurationError
from provgate_gateway.access.interceptor import AccessInterceptor
from provgate_gateway.access.limits import PrincipalLimits
from provgate_gateway.access.principals import Callers
from provgate_gateway.access.settings import AccessSettings
from provgate_gateway.access.tokens import TokenLine, read_token_file
from provgate_gateway.access.watched_files import WatchedFiles

logger = logging.getLogger(__name__)

_PATH: Final = "provenance.gateway"


@dataclass(frozen=True)
class AccessControl:
    """Access control that is on.

    Attributes:
        interceptor: decides about each call.
        limits: of each principal, also for what is written.
    """

    interceptor: AccessInterceptor
    limits: PrincipalLimits


def access_control(settings: AccessSettings, *, client_ca: bool, private: bool) -> AccessControl | None:
    """Returns the access control that settings ask for; None for none.

    Args:
        settings: who may call.
        client_ca: whether client certificates are required.
        private: whether nobody can read what passes on the wire.

    Raises:
        ConfigurationError: the file of tokens is missing or wrong, or there can be no certificates.
    """
    if not settings.is_controlled:
        return None
    if settings.certificates and not client_ca:
        raise ConfigurationError(f"{_PATH}.access.certificates: they need tls_client_ca, which asks clients for them")
    if settings.tokens_file is not None and not private:
        logger.warning(
            "tokens are sent in plain text, to an address that other machines reach",
            extra={"action": "access.plaintext"},
        )
    limits = PrincipalLimits(settings.limits)
    callers = Callers(_tokens(settings.tokens_file), settings.certificates)
    return AccessControl(AccessInterceptor(callers, limits), limits)


def _tokens(file: str | None) -> Callable[[], list[TokenLine]]:
    return list if file is None else WatchedFiles([file], partial(_read_tokens, file)).current


def _read_tokens(file: str) -> list[TokenLine]:
    try:
        return read_token_file(file)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_PATH}.access.tokens_file: {error.message}") from error
