"""deepkit's Numba backend beside what else a user could run on the same processor.

    networks    the networks, each written once, built for every library from the same weights
    ours, torch_peer, jax_peer, served    the contenders: functions that run once, give a result
    operators   the cards' bench samples, forward and backward
    measure     contenders take turns; medians; they must agree before they are timed
    run         one comparison after the other
    roofline    what this machine can do at most, measured
    targets     what was promised
    report, draw    one table, JSON, one picture

Nothing here imports NumPy when it is imported itself: `__main__` settles threads first.
"""
