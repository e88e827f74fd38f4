from __future__ import annotations

import subprocess
import sys

MODULES = ("sources.gguf", "sources.hub", "sources.local", "sources.wheel", "models.pretrained")
HEAVY = ("torch", "transformers", "numpy", "pandas", "datasets", "huggingface_hub", "gguf")


def test_sources_load_nothing_heavy() -> None:
    imports = "\n".join(f"import regraft.{module}" for module in MODULES)
    check = f"import sys\nloaded = [name for name in {HEAVY!r} if name in sys.modules]\nassert not loaded, loaded"
    done = subprocess.run([sys.executable, "-c", f"{imports}\n{check}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
