"""deepkit's Numba backend beside what else a user could run on the same processor.

    networks    the networks, each written once, built for every library from the same weights
    ours, torch_peer, jax_peer, served    a contender is a function that runs once and gives a result
    operators   the cards' bench samples, forward and backward
    measure     contenders take turns; medians; they must agree before they are timed
    roofline    what this machine can do at most, measured
    targets     what was promised
    report, draw    one table, JSON, one picture

Nothing here imports NumPy when it is imported itself: `__main__` settles threads first.
"""
