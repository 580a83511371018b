"""A learning rate that is a number, or that a range test suggests."""

from keras_dnn_extras.learning_rates.range_test_result import LearningRateSearch


def rate_of(name: str, rate: float | LearningRateSearch) -> float:
    """Return the suggestion of a search, or what else was given as it is.

    Args:
        name: of the argument, for errors.

    Raises:
        ValueError: the search suggests no learning rate.
    """
    if not isinstance(rate, LearningRateSearch):
        return rate
    if rate.suggestion is None:
        raise ValueError(
            f"Expected `{name}` to be a number, or a search that suggests one. This search does not: "
            f'"{rate.reason}" Pass a number, or search again with other arguments of `find_learning_rate`. '
            f"Received: {name}=LearningRateSearch with suggestion=None"
        )
    return rate.suggestion
