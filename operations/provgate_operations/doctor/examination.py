"""All checks, those that ask somebody at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from itertools import chain

from provgate_broker.errors import ConnectionLostError
from provgate_config import ConfigurationError
from provgate_operations.doctor import broker as of_broker
from provgate_operations.doctor import database as of_database
from provgate_operations.doctor import gateway as of_gateway
from provgate_operations.doctor.certificates import certificate_files, certificate_findings
from provgate_operations.doctor.daemon_call import in_daemon_thread
from provgate_operations.doctor.deployment import Broker, Deployment
from provgate_operations.doctor.findings import Finding, broken, skipped
from provgate_operations.doctor.versions import version_findings
from provgate_storage.errors import StorageError
from provgate_storage.local import LocalStorage


async def examine(deployment: Deployment, timeout_s: float) -> list[Finding]:
    """Returns what every check finds.

    Broker, databases and gateway are asked at once; one that is away leaves the others alone.

    Args:
        deployment: what there is to check.
        timeout_s: how long each of them may take.
    """
    asked: list[Awaitable[list[Finding]]] = [
        _broker(deployment.broker, timeout_s),
        *(_database(where, storage, deployment, timeout_s) for where, storage in deployment.databases.items()),
        _gateway(deployment, timeout_s),
    ]
    if not deployment.databases:
        asked.append(_no_database())
    answers = await asyncio.gather(*asked)
    certificates = certificate_findings(certificate_files(deployment))
    return [*deployment.findings, *version_findings(), *chain.from_iterable(answers), *certificates]


async def _broker(broker: Broker | None, timeout_s: float) -> list[Finding]:
    if broker is None:
        checks = ("broker", *of_broker.DEPENDENT_CHECKS)
        return [skipped(check, "no broker is configured here") for check in checks]
    try:
        async with asyncio.timeout(timeout_s):
            facts = await of_broker.ask_broker(broker)
    except (ConnectionLostError, TimeoutError) as error:
        return of_broker.unreachable(broker, error)
    return list(of_broker.broker_findings(broker, facts))


async def _database(where: str, storage: LocalStorage, deployment: Deployment, timeout_s: float) -> list[Finding]:
    try:
        facts = await in_daemon_thread(lambda: of_database.ask_database(storage), timeout_s)
    except (StorageError, TimeoutError) as error:
        return of_database.unreachable(where, error)
    policy = None if deployment.broker is None else deployment.broker.policy
    return list(of_database.database_findings(where, facts, policy))


async def _no_database() -> list[Finding]:
    checks = ("database", *of_database.DEPENDENT_CHECKS)
    return [skipped(check, "no database is configured here that gateway or workers of ours use") for check in checks]


async def _gateway(deployment: Deployment, timeout_s: float) -> list[Finding]:
    client = of_gateway.client_of(deployment)
    if client is None:
        return [of_gateway.no_address()]
    has_storage = deployment.broker is None or not deployment.broker.existing
    try:
        return await asyncio.to_thread(of_gateway.ask_gateway, client, has_storage=has_storage, timeout_s=timeout_s)
    except ConfigurationError as error:
        return [broken(of_gateway.CHECK, error.message, "the client does not start", "correct the setting")]
