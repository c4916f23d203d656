"""Worker programs and gateways under the launcher: start, stop, kill, suspend, and again."""

from __future__ import annotations

import json

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack

SERVICE = "provgate.v1.ProvenanceStorage"


def wait_serving(address: str, timeout_s: float = 10.0) -> None:
    """Returns as soon as the health service says SERVING; raises RpcError when it does not in time."""
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        for answer in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=timeout_s, wait_for_ready=True):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return


def test_gateway_serves_at_the_configured_address(shared_stack: Stack) -> None:
    gateway = shared_stack.gateways[0]
    assert gateway.address == shared_stack.address
    wait_serving(gateway.address)


def test_second_gateway_has_an_address_of_its_own(shared_stack: Stack) -> None:
    second = shared_stack.start_gateway()
    assert second.address != shared_stack.address
    wait_serving(second.address)
    assert second.terminate() == 0


def test_every_queue_has_one_active_consumer(
    shared_stack: Stack, module_amqp_url: str, rabbitmq_node: RabbitMqNode
) -> None:
    vhost = module_amqp_url.rpartition("/")[2]
    listed = rabbitmq_node.ctl("list_consumers", "--vhost", vhost, "queue_name", "active", "--formatter", "json")
    consumers = [consumer for consumer in json.loads(listed) if not consumer["queue_name"].startswith("amq.")]
    active = [consumer["queue_name"] for consumer in consumers if consumer["active"]]
    assert len(active) == len(set(active)) == 160


def test_programs_end_with_zero_when_asked(stack: Stack) -> None:
    (gateway,), (workers,) = stack.gateways, stack.workers
    wait_serving(gateway.address)
    assert gateway.terminate() == 0
    assert workers.terminate() == 0
    assert not gateway.alive
    assert not workers.alive


def test_gateway_comes_back_at_the_same_address(stack: Stack) -> None:
    (gateway,) = stack.gateways
    gateway.kill()
    gateway.start()
    gateway.wait_ready()
    assert gateway.address == stack.address
    wait_serving(stack.address)


def test_suspended_gateway_goes_on(shared_stack: Stack) -> None:
    gateway = shared_stack.gateways[0]
    gateway.stop()
    with pytest.raises(grpc.RpcError):
        wait_serving(gateway.address, timeout_s=0.5)
    gateway.cont()
    wait_serving(gateway.address)
