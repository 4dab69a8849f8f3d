"""The table that says which paper-scale files are on this machine, and whether they are right."""

from gmmlib.data import catalogue
from gmmlib.data.catalogue import DATASETS, DatasetError


def show():
    """Print what is where; return whether every file is there and right."""
    root = catalogue.named_folder() or catalogue.cache_folder()
    print(f"data folder: {catalogue.place(root)}")
    print(f"{'data set':<10}{'files':>10}  {'verified':<10}where")
    trouble = []
    for dataset in DATASETS.values():
        count, verified, complaints = _look(dataset, root)
        share, where = f"{count}/{len(dataset.files)}", root / dataset.folder
        print(f"{dataset.title:<10}{share:>10}  {verified:<10}{where}")
        trouble += complaints
    for line in trouble:
        print(line)
    return not trouble


def _look(dataset, root):
    """How many files are there, whether they are right (yes, no, -), and what is to be complained of."""
    try:
        missing = catalogue.absent(dataset, root)
    except DatasetError as error:  # a folder that may not be entered; the next one may
        return "?", "no", [str(error)]
    wrong = []
    for file in sorted(set(dataset.files) - set(missing)):
        try:
            catalogue.read(dataset, root, file)
        except DatasetError as error:
            wrong.append(str(error))
    count = len(dataset.files) - len(missing)
    told = wrong[:3] + [f"{dataset.title}: {len(wrong) - 3} more files are wrong"] * (len(wrong) > 3)
    if missing:
        told.append(f"{dataset.title}: {len(missing)} files missing, the first {missing[0]}")
    return count, "no" if wrong else "yes" if count else "-", told
