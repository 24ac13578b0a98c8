"""A custom model as a user writes one: how loud a text is."""

from pathlib import Path


class Loudness:
    task = "moderations"

    def load(self, folder: Path) -> None:
        self.thresholds = {"loud": 0.7}
        self.marks = set("!?")

    def preprocess(self, text: str) -> str:
        if text == "broken":
            raise ValueError(text)
        return text

    def predict(self, prepared: list[str]) -> list[float]:
        return [sum(letter.isupper() or letter in self.marks for letter in text) / len(text) for text in prepared]

    def postprocess(self, output: float) -> dict[str, float]:
        return {"loud": output}
