"""Train the chat-safety classifier on the moderation task of the grammar, and write it as OpenVINO IR. Numpy alone; a minute on one core.

    PYTHONPATH=src python models/training/moderation.py models/chat-safety-0.1m [--held-out]

`--held-out` writes nothing: each sentence pattern of the grammar in turn is left out of training, and is all that is tested on. That is
the honest figure for texts that the grammar never wrote.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from grammar import WORDS, Grammar

from spillway.engine.micro.features import Recipe, features

LABELS = ["toxic", "spam", "friendly", "neutral"]
RECIPE = Recipe(LABELS, {"toxic": 0.5, "spam": 0.5}, buckets=4096, smallest=2, largest=4)
WIDTH = 24
EXAMPLES = 12_000
EPOCHS = 12
BATCH = 64


def lines(pattern_of: "dict[str, list[str]]", count: int, seed: int) -> "list[tuple[str, int]]":
    """Chat lines of these patterns, labels in turn, as players write them: capitals, marks, typos."""
    chance, grammar = random.Random(seed), Grammar(seed)
    found = []
    for number in range(count):
        label = LABELS[number % len(LABELS)]
        if not pattern_of[label]:
            continue
        line = chance.choice(pattern_of[label]).format(**grammar._slots())
        if chance.random() < 0.3:
            line += chance.choice(["!", "!!", " lol", "...", "?!", " :)"])
        if chance.random() < 0.2:
            line = line.upper() if chance.random() < 0.5 else line.capitalize()
        if chance.random() < 0.2 and len(line) > 4:  # a letter is missing
            at = chance.randrange(1, len(line) - 1)
            line = line[:at] + line[at + 1 :]
        found.append((line, LABELS.index(label)))
    return found


def bags(examples: "list[tuple[str, int]]") -> "tuple[list[np.ndarray], np.ndarray]":
    return [np.array(features(text, RECIPE)) for text, _ in examples], np.array([label for _, label in examples])


def train(examples: "list[tuple[str, int]]", seed: int) -> "dict[str, np.ndarray]":
    """Mean of the n-grams' vectors → tanh → softmax; Adam."""
    rng = np.random.default_rng(seed)
    weights = {
        "table": rng.normal(0, 0.1, (RECIPE.buckets, WIDTH)),
        "hidden": rng.normal(0, 0.3, (WIDTH, WIDTH)),
        "output": rng.normal(0, 0.3, (WIDTH, len(LABELS))),
        "bias": np.zeros(len(LABELS)),
    }
    weights["table"][0] = 0.0  # padding
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    texts, labels = bags(examples)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(texts))
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            step += 1
            for name, slope in gradients(weights, [texts[i] for i in chosen], labels[chosen]).items():
                first[name] = 0.9 * first[name] + 0.1 * slope
                second[name] = 0.999 * second[name] + 0.001 * slope**2
                scale = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                weights[name] -= 0.004 * scale * first[name] / (np.sqrt(second[name]) + 1e-8)
            weights["table"][0] = 0.0
    return weights


def forward(weights, texts):
    pooled = np.stack([weights["table"][ids].mean(axis=0) for ids in texts])
    hidden = np.tanh(4.0 * pooled @ weights["hidden"])
    logits = hidden @ weights["output"] + weights["bias"]
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return pooled, hidden, scores / scores.sum(axis=1, keepdims=True)


def gradients(weights, texts, labels):
    pooled, hidden, scores = forward(weights, texts)
    error = scores.copy()
    error[np.arange(len(labels)), labels] -= 1.0
    error /= len(labels)
    inner = error @ weights["output"].T * (1 - hidden**2) * 4.0
    table = np.zeros_like(weights["table"])
    back = inner @ weights["hidden"].T
    for row, ids in enumerate(texts):
        np.add.at(table, ids, back[row] / len(ids))
    return {
        "table": table + 1e-6 * weights["table"],
        "hidden": pooled.T @ inner + 1e-4 * weights["hidden"],
        "output": hidden.T @ error + 1e-4 * weights["output"],
        "bias": error.sum(axis=0),
    }


def judged(weights, examples) -> "dict[str, float]":
    texts, labels = bags(examples)
    found = forward(weights, texts)[2].argmax(axis=1)
    bad, said_bad = labels < 2, found < 2
    return {
        "accuracy": float((found == labels).mean()),
        "flag_recall": float((said_bad & bad).sum() / max(1, bad.sum())),
        "false_flags": float((said_bad & ~bad).sum() / max(1, (~bad).sum())),
    }


def held_out() -> "list[dict[str, float]]":
    """Leave out one pattern of each label at a time."""
    patterns = WORDS["chat_lines"]
    rounds = []
    for turn in range(max(map(len, patterns.values()))):
        out = {label: [patterns[label][turn % len(patterns[label])]] for label in LABELS}
        rest = {label: [one for one in patterns[label] if one not in out[label]] for label in LABELS}
        rounds.append(judged(train(lines(rest, EXAMPLES // 2, turn), turn), lines(out, 400, 1000 + turn)))
    return rounds


def write(weights, folder: Path) -> None:
    """ids [n, width] → scores [n, labels]; padding counts nothing in the mean."""
    sys.modules["openvino_telemetry"] = None
    import openvino as ov
    from openvino import opset13 as op

    half = {name: op.convert(op.constant(value.astype(np.float16)), "f32") for name, value in weights.items()}
    ids = op.parameter([-1, -1], np.int32, name="ids")
    gathered = op.gather(half["table"], ids, op.constant(np.int64(0)))
    present = op.convert(op.not_equal(ids, op.constant(np.int32(0))), "f32")
    count = op.maximum(op.reduce_sum(present, op.constant(np.int64(1)), keep_dims=True), op.constant(np.float32(1)))
    pooled = op.divide(op.reduce_sum(gathered, op.constant(np.int64(1))), count)
    hidden = op.tanh(op.multiply(op.matmul(pooled, half["hidden"], False, False), op.constant(np.float32(4))))
    logits = op.add(op.matmul(hidden, half["output"], False, False), half["bias"])
    model = ov.Model([op.softmax(logits, 1)], [ids], "chat-safety")
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, folder / "classifier.xml", compress_to_fp16=True)
    recipe = {name: getattr(RECIPE, name) for name in RECIPE.__struct_fields__}
    (folder / "classifier.json").write_text(json.dumps(recipe, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held-out", action="store_true")
    arguments = parser.parse_args()
    if arguments.held_out:
        rounds = held_out()
        for one in rounds:
            print({name: round(value, 3) for name, value in one.items()})
        print("mean", {name: round(float(np.mean([one[name] for one in rounds])), 3) for name in rounds[0]})
        return
    weights = train(lines(WORDS["chat_lines"], EXAMPLES, 1), 1)
    print({name: round(value, 4) for name, value in judged(weights, lines(WORDS["chat_lines"], 4000, 99)).items()})
    write(weights, arguments.folder)


if __name__ == "__main__":
    main()
