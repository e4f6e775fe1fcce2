"""A table ten times as large takes no more memory, in a process of its own that is watched."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ALLOWED = 35  # MiB more, for 45 MiB more of CSV: targets, a fuller sample, what is not given back
CODE = """
import json, resource, sys, tempfile
from pathlib import Path
import numpy as np
import pandas, pyarrow.csv, scipy.special
from litlab.data.sources.table import Table


def peak(path):
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        table = Table(path=path, target="y", scale="quantile", impute="median")
        raw = table.read(Path(scratch))
        x, rows = raw.parts["all"][0], len(raw.parts["all"][0])
        chunks = lambda: (x[np.arange(i, min(i + 8192, rows))] for i in range(0, rows, 8192))
        raw.encoder.fit(chunks)
        for chunk in chunks():
            raw.encoder.encode(chunk)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


small, large = sys.argv[1:]
before = peak(small)
print(json.dumps({"grown": peak(large) - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in another unit elsewhere")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"number {i}": rng.normal(size=40_000).round(5) for i in range(10)})
    for i in range(5):
        frame[f"category {i}"] = rng.choice([f"value {j}" for j in range(40)], 40_000)
    frame["y"] = rng.choice(["a", "b", "c"], 40_000)
    text = frame.to_csv(index=False) if suffix == ".csv" else ""
    paths = [tmp_path / f"{name}{suffix}" for name in ("small", "large")]
    for path, times in zip(paths, (1, 10), strict=True):
        if suffix == ".csv":
            header, _, rows = text.partition("\n")
            path.write_text(f"{header}\n{rows * times}")
        else:  # one row group, as pandas writes by default
            repeated = pd.concat([frame] * times)
            repeated.to_parquet(path, index=False, row_group_size=len(repeated))
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, paths)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["grown"] < ALLOWED, done.stdout
