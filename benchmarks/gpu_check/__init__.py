"""Build, test and measure on the GPU of a machine within a time budget: `make gpu-check`.

    stages.py    the stages, their commands and time limits; runs one of them
    check.py     runs all stages, and writes the results after each
    cases.py     the cases inside of a stage: each has a limit, and says how it ended
    gpu_tests.py the tests of the GPU backends, in several processes; only_gpu.py selects them
    steps.py     whole training steps
    ops.py       operators: compiles their kernels, times them, or calls them for compute-sanitizer

No stage needs pytest-xdist, tyro or a network.
"""
