"""Benchmarks of Lightwell and other data loaders: ``lightwell bench NAME --data DIR --json FILE``.

    catalogue    list of benchmarks                  benchmark     benchmarks, contestants, ratios
    command      validates, runs, prints             runner        runs contestants, a process per run
    photos       selects and prepares photos         single_run    one run of one contestant
    report       machine, versions, table, JSON      throughput    images per second of a stream of batches
                                                     crops         random crops, the same for all contestants

A new benchmark is a module with a ``BENCH`` and a line in ``catalogue``.
"""
