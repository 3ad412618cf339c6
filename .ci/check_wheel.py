"""Check what a wheel carries: every file of the package and of kernels/, and nothing else."""

import subprocess
import sys
import zipfile


def main(wheel: str) -> None:
    packed = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    git = subprocess.run(
        ["git", "ls-files", "deepkit", "kernels"], capture_output=True, text=True, check=True
    )
    tracked = git.stdout.splitlines()
    expected = {f"deepkit/{n}" if n.startswith("kernels/") else n for n in tracked}
    for name in sorted(expected - packed):
        print(f"not in the wheel: {name}")
    for name in sorted(packed - expected):
        print(f"in the wheel, but not in the repository: {name}")
    rooms = ("deepkit/kernels/", "deepkit/data/files/", "deepkit/py.typed")
    missing = [room for room in rooms if not any(n.startswith(room) for n in packed)]
    for room in missing:
        print(f"the wheel has no {room}")
    if packed != expected or missing:
        sys.exit(1)
    print(f"the wheel has all {len(packed)} files")


main(sys.argv[1])
