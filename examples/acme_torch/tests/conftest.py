import os

os.environ["CELERIAC_QUEUES"] = "torch"  # before the contracts are imported
os.environ["OMP_NUM_THREADS"] = (
    "1"  # as in a worker; threads that wait for each other on a busy machine take 20 times as long
)
