"""Train the prior that comes with the library, on photographs that come with installed packages."""

from gmmlib.data import datasets
from gmmlib.restore import shipped, training

NOTE = """\
astronaut (NASA, public domain), brick, camera, chelsea, coffee, grass and gravel (CC0), which come with
scikit-image, and china and flower (danielbuechele, CC BY 2.0), which come with scikit-learn"""


def main():
    """Write the model file."""
    path = shipped.place("fast")
    training.stationary(photographs()).save(path, note=NOTE)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def photographs():
    """Those of the sample that the chapters do not restore."""
    return datasets.load_bsds("train", "sample") + datasets.load_bsds("test", "sample")


if __name__ == "__main__":
    main()
