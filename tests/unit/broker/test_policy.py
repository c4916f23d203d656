"""Exchanges, ranges, queues and routing keys."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_broker.errors import TopologyError
from provgate_broker.topology.policy import (
    OPERATIONS,
    RANGE_COUNTS,
    Exchange,
    Operation,
    RangePolicy,
    WriteMethod,
    binding_key,
    exchange_of,
    exchanges,
    is_write,
    location_id,
    operations_of,
    parse_binding_key,
)
from provgate_storage.model import RelationType

CONTENT_ADD = Operation(WriteMethod.CONTENT_ADD)
EARLY = Operation(WriteMethod.RELATION_ADD, RelationType.CNT_EARLY_IN_REV)


def test_there_is_an_exchange_for_each_entity_and_for_locations() -> None:
    assert list(exchanges()) == ["content", "directory", "location", "origin", "revision"]


@pytest.mark.parametrize(
    ("exchange", "operations"),
    [
        ("content", ["content_add.unknown", "relation_add.content_in_revision", "relation_add.content_in_directory"]),
        ("directory", ["directory_add.unknown", "relation_add.directory_in_revision"]),
        ("location", ["location_add.unknown"]),
        ("origin", ["origin_add.unknown"]),
        (
            "revision",
            ["revision_add.unknown", "relation_add.revision_before_revision", "relation_add.revision_in_origin"],
        ),
    ],
)
def test_an_exchange_handles_its_entity_and_the_relations_that_start_at_it(
    exchange: str, operations: list[str]
) -> None:
    assert sorted(map(str, operations_of(Exchange(exchange)))) == sorted(operations)


def test_names_are_those_of_existing_deployments() -> None:
    assert binding_key(CONTENT_ADD, 10) == "content_add.unknown.a"
    assert binding_key(EARLY, 0) == "relation_add.content_in_revision.0"
    assert binding_key(CONTENT_ADD, 255) == "content_add.unknown.ff"


def test_there_are_160_queues_with_16_ranges() -> None:
    queues = list(RangePolicy().queues())
    assert len({queue.name for queue in queues}) == len(queues) == 160
    assert len({(queue.exchange, queue.range_number) for queue in queues}) == 80


@given(st.sampled_from(OPERATIONS), st.integers(0, 255))
def test_a_binding_key_can_be_parsed(operation: Operation, range_number: int) -> None:
    assert parse_binding_key(binding_key(operation, range_number)) == (operation, range_number)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "content_add",
        "content_add.unknown",
        "content_add.unknown.",
        "content_add.unknown.g",
        "content_add.unknown.A",
        "content_add.unknown.0a",
        "content_add.unknown.100",
        "content_add.unknown.-1",
        "content_add.content_in_revision.a",
        "relation_add.unknown.a",
        "relation_add.nothing.a",
        "content_get.unknown.a",
        "content_add.unknown.a.b",
    ],
)
def test_other_texts_are_refused(key: str) -> None:
    with pytest.raises(TopologyError):
        parse_binding_key(key)


@given(st.text())
def test_any_text_is_a_binding_key_or_refused(key: str) -> None:
    try:
        operation, range_number = parse_binding_key(key)
    except TopologyError:
        return
    assert binding_key(operation, range_number) == key


@given(st.binary(min_size=20, max_size=20))
def test_with_16_ranges_the_range_is_the_first_digit(id: bytes) -> None:
    assert RangePolicy().routing_key(CONTENT_ADD, id) == f"content_add.unknown.{id.hex()[0]}"
    assert RangePolicy().routing_key(CONTENT_ADD, id) in RangePolicy().binding_keys(Exchange.CONTENT, id[0] // 16)


@given(st.integers(0, 255), st.sampled_from(RANGE_COUNTS))
def test_ranges_are_contiguous_slices_of_equal_size(first_byte: int, count: int) -> None:
    policy = RangePolicy.of({"content": count})
    number = policy.range_of(Exchange.CONTENT, bytes([first_byte]) * 20)
    assert number in policy.ranges(Exchange.CONTENT)
    assert number * 256 // count <= first_byte < (number + 1) * 256 // count
    # With 16 ranges, the default, the range is the first hexadecimal digit.
    assert policy.ranges_by_first_byte[Exchange.DIRECTORY][first_byte] == first_byte // 16


def test_a_row_of_a_relation_goes_to_the_exchange_of_its_source() -> None:
    for relation in RelationType:
        operation = Operation(WriteMethod.RELATION_ADD, relation)
        assert exchange_of(operation).value == relation.source.value


def test_the_id_of_a_location_is_the_sha1_of_its_path() -> None:
    assert location_id(b"src/a.c") == hashlib.sha1(b"src/a.c").digest()
    # The queue in which an existing deployment's client puts this path.
    assert RangePolicy().routing_key(Operation(WriteMethod.LOCATION_ADD), location_id(b"src/a.c"))[-1] == "f"


def test_methods_that_write() -> None:
    assert all(is_write(method.value) for method in WriteMethod)
    assert not any(is_write(name) for name in ("content_get", "relation_get_all", "with_path", "open", ""))


@pytest.mark.parametrize("counts", [{"content": 3}, {"content": 0}, {"content": 512}, {"snapshot": 16}])
def test_invalid_range_counts_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(counts))):
        RangePolicy.of(counts)


def test_only_relation_add_has_a_relation() -> None:
    with pytest.raises(ValueError):
        Operation(WriteMethod.RELATION_ADD)
    with pytest.raises(ValueError):
        Operation(WriteMethod.CONTENT_ADD, RelationType.CNT_IN_DIR)
