import os

from ensemble.system.cores import count_cores, shares_of_cores


def test_cores_are_shared_evenly():
    cores = os.sched_getaffinity(0)
    assert count_cores() == len(cores)
    shares = [share for share in shares_of_cores(len(cores)) if share]

    assert set.union(*shares) == cores
    assert sum(map(len, shares)) == len(cores)
    assert shares_of_cores(len(cores) + 1)[-1] is None
