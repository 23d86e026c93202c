"""Gainsay against servers and clients that nobody here wrote; see scripts/check-remote.

    scripts/check-remote [part ...]     parts: llama transformers openrlhf verl options trl load swap killed refusals

Every part prints what it measured; the exit status is 1 when one of them fails.
"""

import sys
import tempfile
import time
import traceback
from pathlib import Path

from common import Skip
from engines import llama, transformers
from service import killed, load, refusals, swap
from trainers import openrlhf, options, trl, verl

PARTS = [llama, transformers, openrlhf, verl, options, trl, load, swap, killed, refusals]


def main():
    names = [part.__name__ for part in PARTS]
    unknown = [name for name in sys.argv[1:] if name not in names]
    if unknown:
        sys.exit(f"there is no part {', '.join(unknown)}: {' '.join(names)}")
    wanted = sys.argv[1:] or names
    passed, failed, skipped = 0, [], []
    with tempfile.TemporaryDirectory() as folder:
        for part in (part for part in PARTS if part.__name__ in wanted):
            print(f"== {part.__name__} ==", flush=True)
            started = time.time()
            try:
                part(Path(folder))
                passed += 1
                print(f"  passed in {time.time() - started:.0f} s", flush=True)
            except Skip as why:
                skipped.append(part.__name__)
                print(f"  !! SKIPPED: {why}", flush=True)
            except (Exception, SystemExit) as error:  # noqa: BLE001: the other parts go on
                failed.append(part.__name__)
                traceback.print_exc()
                print(f"  FAILED: {type(error).__name__}: {error}", flush=True)
    for what, parts in [("SKIPPED", skipped), ("FAILED", failed)]:
        if parts:
            print(f"!! {what}: {', '.join(parts)}")
    print(f"{passed} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
