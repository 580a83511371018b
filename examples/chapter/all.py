"""Run all scripts of the chapter in one process, with one command line: [epochs] [backend] [seeds]."""

import pathlib
import runpy
import time

for path in sorted(pathlib.Path(__file__).parent.glob("[0-9]*.py")):
    started = time.time()
    print(f"\n=== {path.name}")
    runpy.run_path(str(path), run_name="__main__")
    print(f"--- {path.name}: {time.time() - started:.0f} s", flush=True)
