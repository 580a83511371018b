"""What is in the way of changing a graph."""


class ObstacleError(Exception):
    """A change is not possible: the message is a clause that names the layers in the way."""
