"""What can go wrong with a run, other than its data."""


class TrainingError(RuntimeError):
    """Training that cannot go on, such as a loss that is no longer a number; one sentence."""


class RunFolderError(ValueError):
    """An output folder that cannot be used; one sentence."""
