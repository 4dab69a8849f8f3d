"""Time the library against its own floor and against the alternatives."""

import json
import platform
import warnings

from sklearn.exceptions import ConvergenceWarning

from tools import bench_convolutional, bench_full, bench_patches, bench_restoration, timing
from tools.project import REPOSITORY


def main():
    """Print the table and store it as JSON."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # a few iterations converge to nothing
    print(platform.processor() or platform.machine())
    print(timing.HEADER)
    rows = []
    for part in (bench_patches, bench_convolutional, bench_full, bench_restoration):
        for row in part.rows():
            rows.append(row)
            print(row, flush=True)
    target = REPOSITORY / "_build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n", encoding="utf-8")
    print(f"stored in {target.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
