"""The metrics of several processes as one: real processes, some of them killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from provgate_workers.program import shared_metrics as shared_metrics_module
from provgate_workers.program.shared_metrics import FILE_BYTES, SharedMetrics, shared_metrics

# A process that counts what there is to count, says so, and waits to be killed.
COUNTING = """
import sys
from prometheus_client import CollectorRegistry
from provgate_workers.program.shared_metrics import share_metrics
share_metrics(int(sys.argv[1]))
from provgate_workers.metrics import WorkerMetrics
metrics = WorkerMetrics(CollectorRegistry())
for operation in metrics.operations.values():
    operation.deliveries.inc()
    operation.batch_rows.observe(100)
metrics.show(delivering=True, replying=True, writing=True, stalled_count=0, in_hand_bytes=7, bound_bytes=9)
print(len(metrics.operations), flush=True)
sys.stdin.read()
"""


def counting(shared: SharedMetrics, number: int) -> tuple[subprocess.Popen[bytes], int]:
    """Starts a process and returns it once it has counted, with the number of its operations."""
    environment = os.environ | shared.environment(number)
    command = [sys.executable, "-c", COUNTING, str(number)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def killed(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def total(registry: CollectorRegistry, name: str) -> float:
    return sum(sample.value for metric in registry.collect() for sample in metric.samples if sample.name == name)


def test_counters_outlive_their_process_and_gauges_do_not() -> None:
    registry = CollectorRegistry()
    with shared_metrics(registry) as shared:
        processes = [counting(shared, number) for number in range(2)]
        count = processes[0][1]
        assert total(registry, "provgate_workers_deliveries_total") == 2 * count
        assert total(registry, "provgate_workers_in_hand_bytes") == 14
        killed(processes[0][0])
        shared.ended(0)
        assert total(registry, "provgate_workers_deliveries_total") == 2 * count
        assert total(registry, "provgate_workers_in_hand_bytes") == 7
        # The next of its number counts on.
        processes[0] = counting(shared, 0)
        assert total(registry, "provgate_workers_deliveries_total") == 3 * count
        assert total(registry, "provgate_workers_batch_rows_count") == 3 * count
        assert total(registry, "provgate_workers_in_hand_bytes") == 14
        for process, _ in processes:
            killed(process)
    assert total(registry, "provgate_workers_deliveries_total") == 0


def test_files_have_room_for_all_series_and_do_not_grow_in_number() -> None:
    with shared_metrics(CollectorRegistry()) as shared:
        directory = Path(shared.environment(0)[shared_metrics_module.DIRECTORY_VARIABLE])
        for _ in range(2):
            process, _ = counting(shared, 0)
            killed(process)
            sizes = {path.name: path.stat() for path in directory.iterdir()}
            assert {name: found.st_size for name, found in sizes.items()} == {
                f"{kind}_0.db": size_bytes for kind, size_bytes in FILE_BYTES.items()
            }
            # Without holes: a full disk cannot stop who writes there.
            assert all(found.st_blocks * 512 >= found.st_size for found in sizes.values())
            shared.ended(0)
    assert not directory.exists()


def test_a_full_disk_leaves_metrics_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # More than any disk has.
    monkeypatch.setattr(shared_metrics_module, "FILE_BYTES", {"counter": 2**62})
    assert SharedMetrics(tmp_path).environment(0) == {}
    assert "the metrics of worker process 0 are not shown" in caplog.text


def test_without_a_directory_metrics_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with shared_metrics(CollectorRegistry()) as shared:
        assert shared.environment(0) == {}
        shared.ended(0)
    assert "the metrics of worker processes are not shown" in caplog.text
