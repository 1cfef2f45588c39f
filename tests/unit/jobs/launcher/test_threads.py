"""Processes that share cores must not each take them all."""

import os

from kompress_jobs.pod.threads import available_cpus, limit_threads


def test_the_cpu_limit_of_the_container_counts(tmp_path):
    limit = tmp_path / "cpu.max"
    limit.write_text("50000 100000\n")
    assert available_cpus(limit) == 0.5


def test_without_a_limit_all_cores_count(tmp_path):
    limit = tmp_path / "cpu.max"
    limit.write_text("max 100000\n")
    cores = len(os.sched_getaffinity(0))
    assert available_cpus(limit) == cores
    assert available_cpus(tmp_path / "no cgroup") == cores


def test_cores_are_shared_out_and_at_least_one_is_left():
    for cpus, processes, threads in ((8, 2, "4"), (7.5, 2, "3"), (2, 4, "1"), (0.5, 1, "1")):
        environment: dict[str, str] = {}
        limit_threads(environment, processes, cpus)
        assert environment == {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "GOMP_SPINCOUNT": "0"}


def test_what_the_pod_template_sets_stays():
    environment = {"OMP_NUM_THREADS": "6"}
    limit_threads(environment, 2, 2)
    assert environment["OMP_NUM_THREADS"] == "6"
