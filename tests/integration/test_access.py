"""Who may call a gateway, and how much of it each caller may use."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.cli import main
from provgate_client.errors import PermissionDeniedError, UnauthenticatedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_gateway.access.roles import NEEDED, PUBLIC, Role
from provgate_stack.processes.programs import GatewayProgram
from tests.fix_gateway import MakeStack
from tests.integration.access_calls import Rpc, as_holder, bearer, issue, rpcs_of, showing
from tests.integration.gateway_calls import (
    OpenWrite,
    check_turned_away,
    content_id,
    contents,
    eventually,
    outcome_of_unary,
    wait_serving,
    write,
)
from tests.integration.scripted_workers import ScriptedWorkers, in_full, silent

UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
PERMISSION_DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


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

    def stub(self, name: str) -> ProvenanceStorageStub:
        stub: ProvenanceStorageStub = ProvenanceStorageStub(as_holder(self.channel, self.tokens[name]))
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
            tokens = {name: issue(opened.write, name, role) for name, role in names.items()}
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
    outcome = outcome_of_unary(lambda: stub.WithPath(pb2.WithPathRequest(), timeout=5))
    return outcome.code, "" if outcome.ok else outcome.reason


def answer(rpc: Rpc, channel: grpc.Channel) -> tuple[grpc.StatusCode, str] | None:
    """Returns how an RPC refuses who calls; None where it lets them in."""
    outcome = rpc.outcome(channel)
    if outcome.code not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return None
    return outcome.code, outcome.reason


def test_every_rpc_asks_for_its_role(guard: Guard) -> None:
    guarded = guard()
    rpcs = rpcs_of(as_holder(guarded.channel, guarded.tokens["admin"]))
    assert {rpc.name for rpc in rpcs} == {*NEEDED} | PUBLIC
    strangers = [guarded.channel, as_holder(guarded.channel, "wrong"), showing(guarded.channel, ("authorization", ""))]
    for rpc in rpcs:
        needed = NEEDED.get(rpc.name)
        for stranger in strangers:
            assert answer(rpc, stranger) == (None if needed is None else UNAUTHENTICATED), rpc.name
        for role in Role:
            let_in = needed is None or role.includes(needed)
            channel = as_holder(guarded.channel, guarded.tokens[role.value])
            assert answer(rpc, channel) == (None if let_in else PERMISSION_DENIED), (rpc.name, role)


def test_without_access_control_everybody_may_do_everything(
    make_stack: MakeStack, scripted_workers: ScriptedWorkers
) -> None:
    program = make_stack().start_gateway()
    with grpc.insecure_channel(program.address) as channel:
        wait_serving(channel)
        assert [rpc.name for rpc in rpcs_of(channel) if answer(rpc, channel) is not None] == []
    assert program.terminate() == 0


def test_adapter_and_command_line_show_their_token(guard: Guard, tmp_path: Path) -> None:
    guarded = guard()
    url, tokens = guarded.program.address, guarded.tokens
    with ProvenanceStorageGrpc(url=url, token=tokens["writer"]) as storage:
        assert storage.content_add([content_id(1)])
        assert storage.content_get([content_id(1)]) == {}
        assert storage.content_find_first(content_id(1)) is None
    with ProvenanceStorageGrpc(url=url, token=tokens["reader"]) as storage:
        assert list(storage.content_find_all(content_id(1))) == []
        with pytest.raises(PermissionDeniedError, match="reader has the role reader, and the call needs the role wri"):
            storage.content_add([content_id(1)])
    for token in (None, "wrong"):
        with ProvenanceStorageGrpc(url=url, token=token) as storage, pytest.raises(UnauthenticatedError):
            storage.with_path()
    id, file = content_id(1).hex(), tmp_path / "token"
    file.write_text(f"{tokens['reader']}\n")
    asked = CliRunner().invoke(main, ["--url", url, "--token-file", str(file), "get", "contents", id])
    assert (asked.exit_code, asked.stdout, asked.stderr) == (1, "", "")
    refused = CliRunner().invoke(main, ["--url", url, "get", "contents", id], env={"PROVGATE_TOKEN": "wrong"})
    assert refused.exit_code == 1
    assert "the token is unknown" in refused.output


def test_grpcurl_shows_a_token(guard: Guard) -> None:
    guarded = guard()
    grpcurl = [str(Path(sys.executable).parent / "grpcurl"), "-plaintext"]
    call = [guarded.program.address, "provgate.v1.ProvenanceStorage/WithPath"]
    header = ["-H", f"authorization: Bearer {guarded.tokens['reader']}"]
    let_in, refused = (
        subprocess.run([*grpcurl, *shown, *call], capture_output=True, text=True, check=False, timeout=30)
        for shown in (header, [])
    )
    assert (let_in.returncode, let_in.stdout) == (0, '{\n  "with_path": true\n}\n')
    assert refused.returncode != 0
    assert "Unauthenticated" in refused.stderr


def test_tokens_come_and_go_while_the_gateway_runs(guard: Guard) -> None:
    guarded = guard()
    writer = guarded.stub("writer")
    assert with_path(writer)[0] is grpc.StatusCode.OK
    made = CliRunner().invoke(main, ["token", "late", "--role", "reader", "--append", str(guarded.file)])
    late = ProvenanceStorageStub(as_holder(guarded.channel, made.stdout.strip()))
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
    calls = [OpenWrite(guarded.stub("writer")) for _ in range(2)]
    for call in calls:
        call.send(contents(1))
        call.wait_for(lambda progress: progress.acked_count == 1)
    writer = guarded.stub("writer")
    check_turned_away(write(writer.ContentAdd, [contents(1)]), "PRINCIPAL_LIMIT")
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
    begun = OpenWrite(guarded.stub("writer"))
    begun.send(contents(90, first_byte=0))
    begun.wait_for(lambda progress: progress.received_count == 90)
    held = scripted_workers.wait_for(1)
    # One that begins is refused, the one that has begun waits.
    check_turned_away(write(guarded.stub("writer").ContentAdd, [contents(20)]), "PRINCIPAL_LIMIT")
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
    begun = OpenWrite(guarded.stub("writer"))
    begun.send(contents(60_000))
    begun.wait_for(lambda progress: progress.received_count == 60_000)
    begun.send(contents(10_000))
    begun.wait_for(lambda progress: progress.received_count == 70_000)
    outcome = write(guarded.stub("writer").ContentAdd, [contents(1)])
    check_turned_away(outcome, "PRINCIPAL_LIMIT")
    assert outcome.details["RetryInfo"].retry_delay.ToSeconds() >= 5
    assert write(guarded.stub("other").ContentAdd, [contents(1)]).ok
    # One whose deadline comes before its turn is told so.
    late = write(guarded.stub("other").ContentAdd, [contents(60_000), contents(1)], timeout_s=1.0)
    check_turned_away(late, "PRINCIPAL_LIMIT")
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
            together.wait(20)
            return storage.content_add([content_id(number * 100_000 + each) for each in range(40_000)])

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(add, range(3)))


def test_metadata_and_ids_are_bounded(guard: Guard) -> None:
    guarded = guard()
    shown, request = bearer(guarded.tokens["reader"]), pb2.WithPathRequest()
    small, large = (
        ProvenanceStorageStub(showing(guarded.channel, shown, ("x-note", "x" * size))) for size in (12_000, 17_000)
    )
    assert outcome_of_unary(lambda: small.WithPath(request, timeout=5)).ok
    outcome = outcome_of_unary(lambda: large.WithPath(request, timeout=5))
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    stub = guarded.stub("reader")
    too_many = pb2.ContentGetRequest(ids=[content_id(0)] * 100_001)
    refused = outcome_of_unary(lambda: next(stub.ContentGet(too_many, timeout=20)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_IDS")
    assert refused.field_path == "ids"


def test_an_address_that_others_reach_has_no_reflection_unless_asked(guard: Guard) -> None:
    silent_one = guard(listen="0.0.0.0:0", insecure=True)
    assert "tokens are sent in plain text" in silent_one.log()
    with pytest.raises(grpc.RpcError) as raised:
        rpcs_of(as_holder(silent_one.channel, silent_one.tokens["admin"]))
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    telling = guard(listen="0.0.0.0:0", insecure=True, reflection=True)
    assert rpcs_of(as_holder(telling.channel, telling.tokens["reader"]))
    hiding = guard(reflection=False)
    with pytest.raises(grpc.RpcError):
        rpcs_of(as_holder(hiding.channel, hiding.tokens["reader"]))
    assert "plain text" not in hiding.log()
