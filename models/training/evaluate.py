"""How well npc-1.9m does its tasks, on items that training never saw. Needs torch and transformers.

    python evaluate.py ../npc-1.9m/hf

An answer counts as right when it keeps what the question named (item and rarity, character, places), is the right label,
is valid JSON with the right fields, or is the fact word for word. Prints, for each task, how many were right, how many
ended by themselves and how many are not in the training corpus, with two examples.
"""

import argparse
import json
import re
from pathlib import Path

import torch
from grammar import WORDS, Grammar, all_names
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

END, PAD = 2, 0
PER_TASK = {"item": 50, "npc": 50, "quest": 50, "bark": 50, "json": 50, "mod": 50, "faq": 50, "hello": 10}
OUTSIDE = [
    "What should I cook for dinner?",
    "Write a quest about a dragon and a princess.",
    "hello there friend",
    "Moderate: you are all so dumb",
    "Tell me what batching is",
]
NAMED_ITEM = re.compile(r"(common|uncommon|rare|epic|legendary) ([a-z]+ [a-z]+)")


def is_right(task: str, asked: str, expected: str, answer: str) -> bool:
    match task:
        case "item":
            found = NAMED_ITEM.search(asked)
            return found is not None and found[1] in answer and found[2] in answer
        case "json":
            return is_right_record(asked, answer)
        case "mod":
            return answer.split(".")[0].strip() == expected.split(".")[0]
        case "npc":
            names = set(all_names())
            named = [word for word in re.findall(r"[A-Z][a-z]+", asked) if word in names]
            return named[0] in answer
        case "faq":
            return answer == expected
        case "quest":
            places = [place for place in WORDS["places"] if place in asked]
            return answer.startswith("Quest: ") and "Reward:" in answer and all(place in answer for place in places)
        case _:
            return bool(answer)


def is_right_record(asked: str, answer: str) -> bool:
    found = NAMED_ITEM.search(asked)
    try:
        record = json.loads(answer)
    except ValueError:
        return False
    if found is None or not isinstance(record, dict):
        return False
    kind = WORDS["items"][found[2].split()[1]]
    wanted = {"name": found[2], "rarity": found[1], "type": kind}
    return wanted.items() <= record.items() and record.get("price") == record.get("level", 0) * 10


class Writer:
    """The model and its tokenizer, answering many questions at once."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self._tokenizer.padding_side = "left"
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answers(self, questions: list[str], **sampling: object) -> list[tuple[str, bool]]:
        """Each answer, and whether it ended by itself."""
        prompts = [f"<|bos|><|user|>{question}<|end|><|assistant|>" for question in questions]
        encoded = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        encoded.pop("token_type_ids", None)
        with torch.no_grad():
            written = self._model.generate(
                **encoded, max_new_tokens=110, eos_token_id=END, pad_token_id=PAD, **sampling
            )
        rows = [row[encoded["input_ids"].shape[1] :] for row in written]
        return [(self._tokenizer.decode(row, skip_special_tokens=True), bool((row == END).any())) for row in rows]


def questions_by_task() -> dict[str, list[tuple[str, str]]]:
    grammar = Grammar(987, held_out=True)
    chosen: dict[str, list[tuple[str, str]]] = {task: [] for task in PER_TASK}
    while any(len(chosen[task]) < wanted for task, wanted in PER_TASK.items()):
        task, asked, expected = grammar.example()
        if len(chosen[task]) < PER_TASK[task]:
            chosen[task].append((asked, expected))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder in the Hugging Face format")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    writer = Writer(arguments.model)
    training = Grammar(1, held_out=False)
    seen = {training.example()[2] for _ in range(60_000)}
    for task, pairs in questions_by_task().items():
        answers = writer.answers([asked for asked, _ in pairs], do_sample=True, temperature=0.7, top_p=0.95)
        right = sum(is_right(task, *pair, answer) for pair, (answer, _) in zip(pairs, answers, strict=True))
        ended = sum(complete for _, complete in answers)
        fresh = sum(answer not in seen for answer, _ in answers)
        print(f"{task:6} right {right}/{len(pairs)}  ended {ended}/{len(pairs)}  not in training {fresh}/{len(pairs)}")
        for (asked, _), (answer, _) in list(zip(pairs, answers, strict=True))[:2]:
            print(f"   {asked}\n      {answer}")
    for question, (answer, _) in zip(OUTSIDE, writer.answers(OUTSIDE, do_sample=False), strict=True):
        print(f"outside: {question}\n      {answer}")


if __name__ == "__main__":
    main()
