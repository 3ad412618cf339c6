def activate(y, activation):
    assert activation in (None, "relu")
