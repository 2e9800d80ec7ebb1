"""Makes the shop of ``examples/shop`` importable: this project is that one and a little more."""

import sys
from pathlib import Path

SHOP = Path(__file__).resolve().parent.parent / "shop"

if str(SHOP) not in sys.path:
    sys.path.append(str(SHOP))
