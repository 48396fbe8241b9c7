"""Maintenance rests as long as its budget calls for, and ends at once when it shall."""

import math
import threading

import pytest

from delta_writer.maintenance.budget import Budget, Stopped

pytestmark = pytest.mark.unit


class Machine:
    """A clock, the CPU time of a thread, and an event that is only waited for."""

    def __init__(self):
        self.now = self.cpu = 0.0
        self.stopped = False

    def work(self, cpu_s, waiting_s=0.0):
        self.cpu += cpu_s
        self.now += cpu_s + waiting_s

    def wait(self, seconds):
        self.now += seconds
        return self.stopped

    def is_set(self):
        return self.stopped

    def budget(self, cpu_share=0.25, bytes_per_s=math.inf):
        return Budget(cpu_share, bytes_per_s, self, lambda: self.now, lambda: self.cpu)


def test_cpu_takes_its_share_and_no_more():
    machine = Machine()
    budget = machine.budget(cpu_share=0.25)
    for _ in range(100):
        machine.work(0.02)
        budget.used()
    assert machine.cpu == pytest.approx(2)
    assert machine.now == pytest.approx(8)
    assert (budget.worked_s, budget.rested_s) == (pytest.approx(2), pytest.approx(6))


def test_bytes_are_spread_over_time():
    machine = Machine()
    budget = machine.budget(bytes_per_s=1000)
    for _ in range(10):
        budget.used(read=300, written=200)
    assert machine.now == pytest.approx(5)
    assert (budget.bytes_read, budget.bytes_written) == (3000, 2000)


def test_waiting_for_the_store_rests_too_but_saves_nothing_up():
    machine = Machine()
    budget = machine.budget(cpu_share=0.25)
    machine.work(0.1, waiting_s=10)
    budget.used()
    assert budget.rested_s == 0
    machine.work(1)
    budget.used()
    assert budget.rested_s == pytest.approx(3)


def test_time_of_a_library_that_works_elsewhere_counts_whole():
    machine = Machine()
    budget = machine.budget(cpu_share=0.5)
    machine.now += 2
    budget.used(elsewhere_s=2)
    assert machine.now == pytest.approx(4)


def test_it_ends_instead_of_resting():
    stop = threading.Event()
    budget = Budget(0.0001, 1, stop)
    stop.set()
    with pytest.raises(Stopped):
        budget.used(read=10**9)
