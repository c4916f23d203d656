"""Columns are rows, or refused with the place of what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from provgate.v1 import errors_pb2, model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_gateway.errors import CallError
from provgate_gateway.rpc import requests
from provgate_storage.rows.values import MICROSECONDS_MAX, MICROSECONDS_MIN

ID = b"\x01" * 20
OTHER = b"\x02" * 20
CNT_IN_DIR = model_pb2.RELATION_TYPE_CNT_IN_DIR
REV_IN_ORG = model_pb2.RELATION_TYPE_REV_IN_ORG


def contents(**columns: Any) -> Callable[[], object]:
    return lambda: requests.content_rows(pb2.ContentAddRequest(columns=[model_pb2.DatedColumns(**columns)]))


def directories(**columns: Any) -> Callable[[], object]:
    return lambda: requests.directory_rows(pb2.DirectoryAddRequest(columns=[model_pb2.DatedColumns(**columns)]))


def revisions(**columns: Any) -> Callable[[], object]:
    return lambda: requests.revision_rows(pb2.RevisionAddRequest(columns=[model_pb2.RevisionColumns(**columns)]))


def origins(**columns: Any) -> Callable[[], object]:
    return lambda: requests.origin_rows(pb2.OriginAddRequest(columns=[model_pb2.OriginColumns(**columns)]))


def relations(relation: Any, **columns: Any) -> Callable[[], object]:
    request = pb2.RelationAddRequest(relation=relation, columns=[model_pb2.RelationColumns(**columns)])
    return lambda: requests.relation_rows(request)


BAD: list[tuple[Callable[[], object], str, str]] = [
    (contents(ids=[ID, b"x"]), "INVALID_ID", "columns[0].ids[1]"),
    (contents(ids=[b"a" * 40]), "INVALID_ID", "columns[0].ids[0]"),
    (contents(ids=[ID, OTHER], dates=[1]), "INVALID_DATE", "columns[0].dates"),
    (contents(ids=[ID], dates=[1, 2]), "INVALID_DATE", "columns[0].dates"),
    (contents(), "INVALID_ID", "columns[0].ids"),
    (contents(dates=[1]), "INVALID_ID", "columns[0].ids"),
    (directories(), "INVALID_ID", "columns[0].ids"),
    (revisions(), "INVALID_ID", "columns[0].ids"),
    (origins(), "INVALID_ID", "columns[0].ids"),
    (relations(CNT_IN_DIR), "INVALID_ID", "columns[0].srcs"),
    (directories(ids=[ID, OTHER], dates=[0, MICROSECONDS_MAX + 1]), "INVALID_DATE", "columns[0].dates[1]"),
    (directories(ids=[ID, OTHER], dates=[MICROSECONDS_MIN - 1, 0]), "INVALID_DATE", "columns[0].dates[0]"),
    (revisions(ids=[ID, OTHER], origins=[ID]), "INVALID_ID", "columns[0].origins"),
    (revisions(ids=[ID], origins=[b"x"]), "INVALID_ID", "columns[0].origins[0]"),
    (revisions(ids=[ID], dates=[2**63 - 1]), "INVALID_DATE", "columns[0].dates[0]"),
    (revisions(origins=[ID]), "INVALID_ID", "columns[0].ids"),
    (origins(ids=[ID]), "INVALID_URL", "columns[0].urls"),
    (origins(ids=[ID, OTHER], urls=["u", ""]), "INVALID_URL", "columns[0].urls[1]"),
    (origins(urls=["u"]), "INVALID_ID", "columns[0].ids"),
    (relations(CNT_IN_DIR, srcs=[ID], dsts=[b"x"], paths=[b""]), "INVALID_ID", "columns[0].dsts[0]"),
    (relations(CNT_IN_DIR, srcs=[ID], dsts=[ID, ID], paths=[b""]), "INVALID_ID", "columns[0].dsts"),
    (relations(CNT_IN_DIR, srcs=[ID + b"x"], dsts=[ID], paths=[b""]), "INVALID_ID", "columns[0].srcs[0]"),
    (relations(CNT_IN_DIR, srcs=[ID], dsts=[OTHER]), "INVALID_PATH", "columns[0].paths"),
    (relations(CNT_IN_DIR, srcs=[ID, ID], dsts=[ID, ID], paths=[b"", b"a\0b"]), "INVALID_PATH", "columns[0].paths[1]"),
    (relations(CNT_IN_DIR, srcs=[ID], dsts=[OTHER], paths=[b"x" * 4097]), "INVALID_PATH", "columns[0].paths[0]"),
    (relations(REV_IN_ORG, srcs=[ID], dsts=[OTHER], paths=[b""]), "INVALID_PATH", "columns[0].paths[0]"),
]


@pytest.mark.parametrize(("take", "reason", "field_path"), BAD)
def test_what_is_wrong_is_told_with_its_place(take: Callable[[], object], reason: str, field_path: str) -> None:
    with pytest.raises(CallError) as raised:
        take()
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.field_path == field_path
    assert errors_pb2.ErrorReason.Name(raised.value.reason) == f"ERROR_REASON_{reason}"


def test_a_column_is_complete_or_empty() -> None:
    two = [ID, OTHER]
    assert contents(ids=two)() == [(ID, None), (OTHER, None)]
    assert contents(ids=two, dates=[MICROSECONDS_MIN, MICROSECONDS_MAX])() == [
        (ID, MICROSECONDS_MIN),
        (OTHER, MICROSECONDS_MAX),
    ]
    assert revisions(ids=two)() == [(ID, None, None), (OTHER, None, None)]
    assert revisions(ids=two, dates=[0, -1], origins=[OTHER, ID])() == [(ID, 0, OTHER), (OTHER, -1, ID)]
    assert origins(ids=two, urls=["a", "b"])() == [(ID, "a"), (OTHER, "b")]
    assert relations(CNT_IN_DIR, srcs=two, dsts=[ID, ID], paths=[b"", b"p"])() == [(ID, ID, b""), (OTHER, ID, b"p")]
    assert relations(REV_IN_ORG, srcs=two, dsts=[ID, ID])() == [(ID, ID), (OTHER, ID)]


def test_a_message_holds_entries_and_columns_in_their_order() -> None:
    request = pb2.ContentAddRequest(
        contents=[model_pb2.Content(id=OTHER)],
        columns=[model_pb2.DatedColumns(ids=[ID], dates=[5]), model_pb2.DatedColumns(ids=[OTHER, ID])],
    )
    assert requests.content_rows(request) == [(OTHER, None), (ID, 5), (OTHER, None), (ID, None)]


def test_the_block_at_fault_is_told() -> None:
    request = pb2.ContentAddRequest(columns=[model_pb2.DatedColumns(ids=[ID]), model_pb2.DatedColumns(ids=[b"x"])])
    with pytest.raises(CallError) as raised:
        requests.content_rows(request)
    assert raised.value.field_path == "columns[1].ids[0]"
