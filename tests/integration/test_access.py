"""Who may call a gateway, and how much of it each caller may use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.cli import main
from provgate_client.errors import PermissionDeniedError, UnauthenticatedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_gateway.access.roles import NEEDED, PUBLIC, Role
from provgate_stack.processes.programs import GatewayProgram
from tests.support.credentials import issue_token
from tests.support.entries import entry_id
from tests.support.fix_stack import MakeStack
from tests.support.gateway_calls import (
    OpenWrite,
    Outcome,
    check_exhausted,
    contents,
    outcome_of,
    outcome_of_unary,
    wait_serving,
    write,
)
from tests.support.polling import eventually
from tests.support.scripted_workers import ScriptedWorkers, in_full, silent

CALL_S = 20.0
UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
PERMISSION_DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


class WithMetadata:
    """A channel whose calls have metadata."""

    def __init__(self, channel: grpc.Channel, *metadata: tuple[str, str]) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, name: str) -> Callable[..., Any]:
        make_rpc = getattr(self._channel, name)
        return lambda *args, **options: partial(make_rpc(*args, **options), metadata=self._metadata)


@dataclass
class Guarded:
    """A gateway with a token for each role.

    Attributes:
        program: the gateway.
        channel: to it.
        file: its file of tokens.
        tokens: by the name of their holder, which is the name of the role.
    """

    program: GatewayProgram
    channel: grpc.Channel
    file: Path
    tokens: dict[str, str]

    def channel_of(self, name: str, *metadata: tuple[str, str]) -> Any:
        return WithMetadata(self.channel, ("authorization", f"Bearer {self.tokens[name]}"), *metadata)

    def stub(self, name: str, *metadata: tuple[str, str]) -> ProvenanceStorageStub:
        stub: ProvenanceStorageStub = ProvenanceStorageStub(self.channel_of(name, *metadata))
        return stub

    def log(self) -> str:
        return self.program.log_path.read_text(encoding="utf-8")


Guard = Callable[..., Guarded]


@pytest.fixture
def guard(make_stack: MakeStack, scripted_workers: ScriptedWorkers, tmp_path: Path) -> Iterator[Guard]:
    """Starts a gateway that asks for tokens, with limits."""
    made: list[Guarded] = []

    def start(listen: str = "127.0.0.1:0", limits: dict[str, int] | None = None, **settings: Any) -> Guarded:
        file = tmp_path / "tokens"
        with file.open("a", encoding="utf-8") as opened:
            names = {"reader": Role.READER, "writer": Role.WRITER, "other": Role.WRITER, "admin": Role.ADMIN}
            tokens = {name: issue_token(opened.write, name, role) for name, role in names.items()}
        access = {"tokens_file": str(file), "limits": limits or {}}
        program = make_stack().start_gateway(listen=listen, access=access, **settings)
        channel = grpc.insecure_channel(program.address.replace("0.0.0.0", "127.0.0.1"))
        made.append(Guarded(program, channel, file, tokens))
        wait_serving(channel)
        return made[-1]

    yield start
    for guarded in made:
        guarded.channel.close()
        assert guarded.program.terminate() == 0
        assert not any(token in guarded.log() for token in guarded.tokens.values())
        assert "Traceback" not in guarded.log()


def with_path(stub: ProvenanceStorageStub) -> tuple[grpc.StatusCode, str]:
    outcome = outcome_of_unary(lambda: stub.WithPath(pb2.WithPathRequest(), timeout=CALL_S))
    return outcome.code, "" if outcome.ok else outcome.reason


def reflected(channel: Any) -> dict[str, Any]:
    """Returns the methods of all services that a gateway tells of, by their names: `/package.Service/Method`."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = [pool.FindServiceByName(name) for name in database.get_services()]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


def refusal(name: str, method: Any, channel: Any) -> tuple[grpc.StatusCode, str] | None:
    """Returns how an RPC refuses the caller; None where it does not.

    It is called with an empty request, or none of a stream, and one response is read at most.
    """

    def first_response() -> Iterator[Any]:
        if not method.server_streaming:
            yield channel.unary_unary(name)(b"", timeout=CALL_S)
            return
        if method.client_streaming:
            call = channel.stream_stream(name)(iter(()), timeout=CALL_S)
        else:
            call = channel.unary_stream(name)(b"", timeout=CALL_S)
        try:
            yield from islice(call, 1)
        finally:
            call.cancel()

    outcome: Outcome = outcome_of(first_response())
    refuses = outcome.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    return (outcome.code, outcome.reason) if refuses else None


def test_every_rpc_asks_for_its_role(guard: Guard) -> None:
    guarded = guard()
    rpcs = reflected(guarded.channel_of("admin"))
    assert {*rpcs} == {*NEEDED} | PUBLIC
    metadata = (("authorization", "Bearer wrong"), ("authorization", ""))
    strangers = [guarded.channel, *(WithMetadata(guarded.channel, each) for each in metadata)]
    for name, method in rpcs.items():
        needed = NEEDED.get(name)
        for stranger in strangers:
            assert refusal(name, method, stranger) == (None if needed is None else UNAUTHENTICATED), name
        for role in Role:
            let_in = needed is None or role.includes(needed)
            found = refusal(name, method, guarded.channel_of(role.value))
            assert found == (None if let_in else PERMISSION_DENIED), (name, role)


def test_without_access_control_everybody_may_do_everything(
    make_stack: MakeStack, scripted_workers: ScriptedWorkers
) -> None:
    program = make_stack().start_gateway()
    with grpc.insecure_channel(program.address) as channel:
        wait_serving(channel)
        assert [name for name, method in reflected(channel).items() if refusal(name, method, channel)] == []
    assert program.terminate() == 0


def test_adapter_and_command_line_show_their_token(guard: Guard, tmp_path: Path) -> None:
    guarded = guard()
    url, tokens = guarded.program.address, guarded.tokens
    with ProvenanceStorageGrpc(url=url, token=tokens["writer"]) as storage:
        assert storage.content_add([entry_id(1)])
        assert storage.content_get([entry_id(1)]) == {}
        assert storage.content_find_first(entry_id(1)) is None
    with ProvenanceStorageGrpc(url=url, token=tokens["reader"]) as storage:
        assert list(storage.content_find_all(entry_id(1))) == []
        with pytest.raises(PermissionDeniedError, match="reader has the role reader, and the call needs the role wri"):
            storage.content_add([entry_id(1)])
    for token in (None, "wrong"):
        with ProvenanceStorageGrpc(url=url, token=token) as storage, pytest.raises(UnauthenticatedError):
            storage.with_path()
    id, file = entry_id(1).hex(), tmp_path / "token"
    file.write_text(f"{tokens['reader']}\n")
    asked = CliRunner().invoke(main, ["--url", url, "--token-file", str(file), "get", "contents", id])
    assert (asked.exit_code, asked.stdout, asked.stderr) == (1, "", "")
    refused = CliRunner().invoke(main, ["--url", url, "get", "contents", id], env={"PROVGATE_TOKEN": "wrong"})
    assert refused.exit_code == 1
    assert "the token is unknown" in refused.output


def test_tokens_come_and_go_while_the_gateway_runs(guard: Guard) -> None:
    guarded = guard()
    writer = guarded.stub("writer")
    assert with_path(writer)[0] is grpc.StatusCode.OK
    made = CliRunner().invoke(main, ["token", "late", "--role", "reader", "--append", str(guarded.file)])
    guarded.tokens["late"] = made.stdout.strip()
    late = guarded.stub("late")
    assert with_path(late)[0] is grpc.StatusCode.OK
    good = guarded.file.read_text(encoding="utf-8")
    guarded.file.write_text(f"{good}late admin nothing\n", encoding="utf-8")
    for _ in range(3):
        assert with_path(late)[0] is grpc.StatusCode.OK
    assert guarded.log().count("the last valid content stays in force") == 1
    guarded.file.write_text(f"# nobody but\n{good.splitlines()[0]}\n", encoding="utf-8")
    assert with_path(guarded.stub("reader"))[0] is grpc.StatusCode.OK
    assert with_path(writer) == with_path(late) == UNAUTHENTICATED


def test_calls_at_once(guard: Guard) -> None:
    guarded = guard(limits={"max_calls": 2})
    calls = [OpenWrite(guarded.stub("writer"), timeout_s=60) for _ in range(2)]
    for call in calls:
        call.send(contents(1))
        call.wait_for(lambda progress: progress.acked_count == 1)
    writer = guarded.stub("writer")
    check_exhausted(write(writer.ContentAdd, [contents(1)]), "PRINCIPAL_LIMIT")
    assert with_path(writer) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PRINCIPAL_LIMIT")
    # Nobody else is disturbed.
    for other in ("reader", "other", "admin"):
        assert with_path(guarded.stub(other))[0] is grpc.StatusCode.OK
    calls[0].cancel()
    eventually(lambda: with_path(writer)[0] is grpc.StatusCode.OK, "the place of a cancelled call is free")
    assert calls[1].end().ok


def test_unacked_entries(guard: Guard, scripted_workers: ScriptedWorkers) -> None:
    guarded = guard(limits={"max_unacked_entries": 100})
    scripted_workers.script = silent
    begun = OpenWrite(guarded.stub("writer"), timeout_s=60)
    begun.send(contents(90, first_byte=0))
    begun.wait_for(lambda progress: progress.received_count == 90)
    held = scripted_workers.wait_for(1)
    # One that begins is refused, the one that has begun waits.
    check_exhausted(write(guarded.stub("writer").ContentAdd, [contents(20)]), "PRINCIPAL_LIMIT")
    begun.send(contents(20, start=90, first_byte=0))
    begun.wait_for(lambda progress: progress.received_count == 110)
    scripted_workers.script = in_full
    assert write(guarded.stub("other").ContentAdd, [contents(100)]).ok
    assert write(guarded.stub("admin").ContentAdd, [contents(1000)]).ok
    for request in held:
        scripted_workers.answer(request, *in_full(request))
    assert begun.end().counts == (110, 110, 110)
    assert write(guarded.stub("writer").ContentAdd, [contents(100)]).ok


def test_entries_a_second(guard: Guard) -> None:
    guarded = guard(limits={"entries_per_second": 10_000})
    begun = OpenWrite(guarded.stub("writer"), timeout_s=60)
    begun.send(contents(60_000))
    begun.wait_for(lambda progress: progress.received_count == 60_000)
    begun.send(contents(10_000))
    begun.wait_for(lambda progress: progress.received_count == 70_000)
    outcome = write(guarded.stub("writer").ContentAdd, [contents(1)])
    check_exhausted(outcome, "PRINCIPAL_LIMIT")
    assert write(guarded.stub("other").ContentAdd, [contents(1)]).ok
    # One whose deadline comes before its turn is told so.
    late = write(guarded.stub("other").ContentAdd, [contents(60_000), contents(1)], timeout_s=2.0)
    check_exhausted(late, "PRINCIPAL_LIMIT")
    assert begun.end().counts == (70_000, 70_000, 70_000)


def test_a_turn_is_no_standstill(guard: Guard) -> None:
    guarded = guard(limits={"entries_per_second": 10_000}, wait_min=0.5, wait_per_batch=0)
    # The second waits for two seconds.
    outcome = write(guarded.stub("writer").ContentAdd, [contents(30_000), contents(1)])
    assert outcome.counts == (30_001, 30_001, 30_001)


def test_large_writes_of_one_principal_come_to_their_end_side_by_side(guard: Guard) -> None:
    limits = {"max_calls": 10, "max_unacked_entries": 3000, "entries_per_second": 40_000}
    guarded = guard(limits=limits, batch_size=500)
    settings: dict[str, Any] = {
        "token": guarded.tokens["writer"],
        "message_entries": 1000,
        "checkpoint_entries": 20_000,
    }
    together = threading.Barrier(3)

    def add(number: int) -> bool:
        with ProvenanceStorageGrpc(url=guarded.program.address, raise_on_failure=True, **settings) as storage:
            together.wait(60)
            return storage.content_add([entry_id(number * 100_000 + each) for each in range(40_000)])

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(add, range(3)))


def test_metadata_and_ids_are_bounded(guard: Guard) -> None:
    guarded = guard()
    small, large = (guarded.stub("reader", ("x-note", "x" * size)) for size in (12_000, 17_000))
    assert with_path(small)[0] is grpc.StatusCode.OK
    outcome = outcome_of_unary(lambda: large.WithPath(pb2.WithPathRequest(), timeout=CALL_S))
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    too_many = pb2.ContentGetRequest(ids=[entry_id(0)] * 100_001)
    refused = outcome_of(guarded.stub("reader").ContentGet(too_many, timeout=CALL_S))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_IDS")
    assert refused.field_path == "ids"


def test_an_address_that_others_reach_has_no_reflection_unless_asked(guard: Guard) -> None:
    silent_one = guard(listen="0.0.0.0:0", insecure=True)
    assert "tokens are sent in plain text" in silent_one.log()
    with pytest.raises(grpc.RpcError) as raised:
        reflected(silent_one.channel_of("admin"))
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    telling = guard(listen="0.0.0.0:0", insecure=True, reflection=True)
    assert reflected(telling.channel_of("reader"))
    hiding = guard(reflection=False)
    with pytest.raises(grpc.RpcError):
        reflected(hiding.channel_of("reader"))
    assert "plain text" not in hiding.log()
