"""The table that says which paper-scale files are on this machine, and whether they are right."""

from gmmlib.data import catalogue
from gmmlib.data.catalogue import DATASETS, DatasetError


def show():
    """Print what is where; return whether every file is there and right.

    Raises
    ------
    DatasetError
        If GMMLIB_DATA is not a folder.
    """
    named = catalogue.named_folder()
    if named is not None:
        catalogue.check_folder(named)
    root = named or catalogue.cache_folder()
    print(f"data folder: {catalogue.place(root)}")
    print(f"{'data set':<10}{'files':>10}  {'verified':<10}where")
    trouble = []
    for dataset in DATASETS.values():
        try:
            missing = catalogue.absent(dataset, root)
        except DatasetError as error:  # a folder that may not be entered; the next one may
            print(f"{dataset.title:<10}{f'?/{len(dataset.files)}':>10}  {'no':<10}{root / dataset.folder}")
            trouble.append(str(error))
            continue
        present = sorted(set(dataset.files) - set(missing))
        wrong = _wrong(dataset, root, present)
        trouble += wrong[:3] + [f"{dataset.title}: {len(wrong) - 3} more files are wrong"] * (len(wrong) > 3)
        word = "-" if not present else "no" if wrong else "yes"
        count = f"{len(present)}/{len(dataset.files)}"
        print(f"{dataset.title:<10}{count:>10}  {word:<10}{root / dataset.folder}")
        if missing:
            trouble.append(f"{dataset.title}: {len(missing)} files missing, the first {missing[0]}")
    for line in trouble:
        print(line)
    return not trouble


def _wrong(dataset, root, files):
    """The complaints about those of the files that are not the pinned ones."""
    complaints = []
    for file in files:
        try:
            catalogue.read(dataset, root, file)
        except DatasetError as error:
            complaints.append(str(error))
    return complaints
