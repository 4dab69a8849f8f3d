"""Random streams as text: where a Generator or RandomState stands, so that a fit can go on from there."""

import json

import numpy as np

STREAMS = (np.random.Generator, np.random.RandomState)


def state(stream):
    """Return what JSON can hold of the state of a stream; None for what is no stream, such as a seed."""
    if isinstance(stream, np.random.Generator):
        return _plain(stream.bit_generator.state)
    return _plain(stream.get_state(legacy=False)) if isinstance(stream, np.random.RandomState) else None


def restore(stream, stored):
    """Put a stream where `state` was taken; ValueError if that was a stream of another kind, or damaged."""
    try:
        if isinstance(stream, np.random.Generator):
            stream.bit_generator.state = stored
        elif isinstance(stream, np.random.RandomState):
            stream.set_state(stored)
        elif stored is not None:
            raise ValueError("there is no stream here")
    except Exception as error:  # numpy raises nearly anything
        raise ValueError(
            f"a random stream stored with a fit must be one of {type(stream).__name__}; got one that cannot "
            f"be put there ({type(error).__name__}). Start the fit again."
        ) from error


def identity(stream):
    """Text that is the same for two streams if they, and streams spawned from them, give the same numbers."""
    seeds = getattr(getattr(stream, "bit_generator", None), "seed_seq", None)
    return json.dumps([state(stream), _plain(getattr(seeds, "state", None))], sort_keys=True, default=str)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
