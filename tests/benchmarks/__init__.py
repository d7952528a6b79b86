"""What Lightwell measures of itself and its peers: ``lightwell bench NAME --data DIR --json FILE``.

    catalogue    which benchmarks there are          contest    what one is: contestants, ratios
    command      checks the request, runs, prints    turns      runs contestants in turn, a process each
    photos       the user's pictures, made ready     pace       images a second of a stream of batches
    report       machine, versions, table, JSON      crops      the law of the random crop, for all alike

A new benchmark is a module with a ``BENCH`` and a line in ``catalogue``.
"""
