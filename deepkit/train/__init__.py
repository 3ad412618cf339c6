"""Training and testing of models: `fit`, `evaluate`, and what may happen beside them."""

from .callbacks import Callback, Checkpoint, CSVLog, EarlyStopping, JSONLinesLog
from .errors import RunFolderError, TrainingError
from .evaluate import Evaluation, Prediction, evaluate, predict
from .fit import fit
from .folder import RunFolder
from .history import History
from .normalize import Normalize
from .run import Run
from .trained import Trained, load_model

__all__ = [
    "CSVLog",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "Evaluation",
    "History",
    "JSONLinesLog",
    "Normalize",
    "Prediction",
    "Run",
    "RunFolder",
    "RunFolderError",
    "Trained",
    "TrainingError",
    "evaluate",
    "fit",
    "load_model",
    "predict",
]
