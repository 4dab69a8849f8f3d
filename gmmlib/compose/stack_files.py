"""Convolutional stacks on disk: settings of the layers, and arrays of their mixtures, axes and the top."""

import reprlib

from sklearn.base import clone

from gmmlib import _contents
from gmmlib.compose import parts, patches
from gmmlib.compose.patch_layer import PatchLayer
from gmmlib.compose.principal_axes import stored

OWN = ("n_axes", "whiten", "chunk_size")  # settings of the stack
LONGEST_SIDE = 2**14  # of an image of a stack in a file, in pixels
OF_LAYERS = sorted(set(PatchLayer._get_param_names()) - {"mixture", "random_state"})


def to_arrays(stack):
    """Settings and arrays of a fitted stack."""
    models = [layer.mixture_ for layer in stack.layers_]
    models += [stack.top_] if hasattr(stack, "top_") else []
    entries, arrays = parts.to_arrays(models, "models")
    layers = [
        {name: getattr(layer, name) for name in OF_LAYERS} | {"n_patches_": layer.n_patches_}
        for layer in stack.layers_
    ]
    for name, axes in _named([layer.axes_ for layer in stack.layers_], stack.axes_):
        if axes is not None:
            arrays |= {f"{name}.mean": axes.mean, f"{name}.basis": axes.basis}
    settings = {name: getattr(stack, name) for name in OWN}
    settings["n_axes"] = None if stack.axes_ is None else stack.axes_.basis.shape[1]
    return settings | {"image_shape": stack.image_shape_, "layers": layers, "models": entries}, arrays


def array_names(settings):
    """What the arrays are called that go with the settings of a file."""
    settings = _checked(settings)
    names = parts.array_names(settings["models"])
    for name, n_axes in _named([layer["n_axes"] for layer in settings["layers"]], settings["n_axes"]):
        names += [] if n_axes is None else [f"{name}.mean", f"{name}.basis"]
    return names


def from_arrays(settings, arrays, where):
    """What a stack has learned, by the names of its attributes, and its own settings."""
    settings = _checked(settings)
    entries, n_layers = settings["layers"], len(settings["layers"])
    models = parts.from_arrays(settings["models"], arrays, where)
    found = {
        name: stored(arrays[f"{name}.mean"], arrays[f"{name}.basis"], f"{where}: {name}")
        for name in (f"axes{number}" for number in (*range(n_layers), "top"))
        if f"{name}.mean" in arrays
    }
    height, width = (
        _contents.count(side, f"{where}['image_shape']", most=LONGEST_SIDE)
        for side in settings["image_shape"]
    )
    shape, layers = (height, width, 1), []
    for number, (entry, mixture) in enumerate(zip(entries, models, strict=False)):
        own = {name: tuple(v) if isinstance(v, list) else v for name, v in entry.items() if name in OF_LAYERS}
        layer = PatchLayer(clone(mixture), **own)
        patches.check_settings(layer)
        layer.mixture_, layer.map_shape_ = mixture, shape
        layer.axes_ = found.get(f"axes{number}")
        layer.n_patches_ = _contents.count(entry["n_patches_"], f"{where}: n_patches_")
        grid = patches.grid(shape, layer.side, layer.stride, layer.border, layer.padding)
        _check_rows(layer, grid, f"{where}: layers[{number}]")
        layers.append(layer)
        shape = layer.cell_shape_
    learned = {"layers_": layers, "axes_": found.get("axestop"), "image_shape_": (height, width)}
    width = shape[0] * shape[1] * shape[2]
    if learned["axes_"] is not None:
        _check_axes(learned["axes_"], width, settings["n_axes"], where)
        width = settings["n_axes"]
    for top in models[n_layers:]:
        learned["top_"] = top
        if parts.row_shape(top) != (width,):
            raise ValueError(
                f"{where} must hold a top that takes {width} numbers; got one that takes rows of shape "
                f"{parts.row_shape(top)}. Save the stack again."
            )
    return learned, {name: settings[name] for name in OWN}


def _named(of_layers, of_top):
    """Pairs of a name in the file and what belongs to it, for each layer and the top."""
    return [*((f"axes{number}", value) for number, value in enumerate(of_layers)), ("axestop", of_top)]


def _check_axes(axes, length, n_axes, where):
    if axes.basis.shape != (length, n_axes):
        raise ValueError(
            f"{where} must hold {n_axes} axes of {length} coordinates; got shape {axes.basis.shape}. Save "
            "the stack again."
        )


def _check_rows(layer, grid, where):
    """Refuse a mixture or axes that do not take the patches of their layer."""
    expected = grid.side if patches.of_images(layer.mixture_) else (grid.length,)
    if layer.axes_ is not None:
        _check_axes(layer.axes_, grid.length, layer.n_axes, where)
        expected = (layer.n_axes,)
    if parts.row_shape(layer.mixture_) != expected:
        raise ValueError(
            f"{where} must hold a mixture that takes rows of shape {expected}; got one that takes "
            f"{parts.row_shape(layer.mixture_)}. Save the stack again."
        )


def _checked(settings):
    """The settings of a stack in a file, if they have the form that `to_arrays` gives them."""
    try:
        layers, models = settings["layers"], settings["models"]
        if (
            settings.keys() == {*OWN, "image_shape", "layers", "models"}
            and len(settings["image_shape"]) == 2
            and 0 < len(layers) <= len(models) <= len(layers) + 1
            and all(layer.keys() == {*OF_LAYERS, "n_patches_"} for layer in layers)
        ):
            return settings
    except (AttributeError, LookupError, TypeError):
        pass
    raise ValueError(
        "its settings must be those of a stack, of its layers and models; got "
        f"{reprlib.repr(settings)}. Save the stack again."
    )
