"""Check the folder that a training run leaves: its files are there, and it learned."""

import csv
import sys
from pathlib import Path

LEAST_ACCURACY = 0.98  # on the test digits
EXPECTED = {".safetensors": 1, ".csv": 1, ".jsonl": 1, ".png": 2}  # curves and misclassified images


def main(folder: Path) -> None:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    for path in files:
        print(f"{path.stat().st_size:>9} {path}")
    for suffix, count in EXPECTED.items():
        found = sum(p.suffix == suffix and p.stat().st_size > 0 for p in files)
        assert found >= count, f"{folder}: {found} files *{suffix}, expected {count}"

    (table,) = (p for p in files if p.suffix == ".csv")
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows, f"{table} has no rows"
    columns = [c for c in rows[-1] if "test" in c and "acc" in c]
    assert len(columns) == 1, f"{table}: no column of test accuracy among {', '.join(rows[-1])}"
    accuracy = float(rows[-1][columns[0]])
    print(f"test accuracy after {len(rows)} epochs: {accuracy:.4f}")
    assert LEAST_ACCURACY <= accuracy <= 1


main(Path(sys.argv[1]))
