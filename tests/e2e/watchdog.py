"""A classifier for tests: it flags texts with BAD in them; SLOW makes it take its time, BROKEN makes it fail."""

import threading
from pathlib import Path


class Watchdog:
    task = "moderations"

    def load(self, folder: Path) -> None: ...

    def preprocess(self, text: str) -> str:
        if "BROKEN" in text:
            raise ValueError
        return text

    def predict(self, prepared: list[str]) -> list[dict[str, float]]:
        if any("SLOW" in text for text in prepared):
            threading.Event().wait(0.8)
        return [{"bad": float("BAD" in text), "harmless": 0.0} for text in prepared]

    def postprocess(self, output: dict[str, float]) -> dict[str, float]:
        return output
