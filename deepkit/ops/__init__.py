"""The cards: what every op means.  `dk.ops.conv2d` and so on are functions of tensors."""

from .elementwise import *  # noqa: F403
from .linear import *  # noqa: F403
from .reduce import *  # noqa: F403
from .shape import *  # noqa: F403
