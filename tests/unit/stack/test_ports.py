from __future__ import annotations

import socket

from provgate_stack.processes.process import LOOPBACK, free_port, free_ports


def test_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as server:
            server.bind((LOOPBACK, port))


def test_ports_are_not_those_of_clients() -> None:
    assert all(port < 32_768 for port in free_ports(50))


def test_preferred_port_is_taken_if_it_is_free() -> None:
    (preferred,) = free_ports(1)
    assert free_port(preferred) == preferred
    with socket.socket() as server:
        server.bind((LOOPBACK, preferred))
        server.listen()
        assert free_port(preferred) != preferred
