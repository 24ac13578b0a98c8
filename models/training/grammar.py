"""The corpus of npc-1.9m: chat examples of a small game studio, made by a grammar from the tables in words.json.

An example is (task, what the user says, what the assistant answers). All text comes from the tables, which are our own:
no third-party data is in it, and a seed always gives the same corpus. Tasks and their weights stand in `TASKS`:
item (describe an item), npc (a character's line), quest (a quest hook), bark (a short line in combat), json (an item as
JSON), mod (a moderation label for a chat line), faq (short facts about serving models), hello (small talk).

`python grammar.py` prints a few examples and how varied the corpus is.
"""

import json
import random
from pathlib import Path

WORDS = json.loads((Path(__file__).parent / "words.json").read_text(encoding="utf-8"))
TASKS = {"item": 26, "npc": 26, "quest": 20, "bark": 6, "json": 9, "mod": 8, "faq": 4, "hello": 1}
GOLD = (20, 40, 50, 75, 80, 100, 120, 150, 200, 250, 300, 500)

Example = tuple[str, str, str]
Slots = dict[str, str | int]


def all_names() -> list[str]:
    """The given names, then those put together from a head and a tail."""
    made = {
        head + tail
        for head in WORDS["name_heads"]
        for tail in WORDS["name_tails"]
        if (len(head) * 7 + ord(head[0]) + ord(tail[0])) % 2 == 0
    }
    return WORDS["names"] + sorted(made)


def is_held_out(adjective: str, item: str) -> bool:
    """A tenth of the pairs of adjective and item never occur in training, so that evaluation can ask for new ones."""
    return (sum(map(ord, adjective)) * 31 + sum(map(ord, item)) * 17) % 10 == 0


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


class Grammar:
    """Draws examples. `held_out`: only items that training never sees (True), only the others (False), or all (None)."""

    def __init__(self, seed: int, *, held_out: bool | None = None) -> None:
        self._random = random.Random(seed)
        self._held_out = held_out
        self._names = all_names()
        self._items = list(WORDS["items"])

    def example(self) -> Example:
        (task,) = self._random.choices(list(TASKS), list(TASKS.values()))
        asked, answered = getattr(self, f"_{task}")()
        return task, asked, answered

    def _slots(self) -> Slots:
        """One draw of every word that a sentence may need."""
        choice = self._random.choice
        while True:
            adjective, item = choice(WORDS["adjectives"]), choice(self._items)
            if self._held_out is None or is_held_out(adjective, item) == self._held_out:
                break
        place, other_place = self._random.sample(WORDS["places"], 2)
        foe, foes = choice(WORDS["foes"])
        number = choice(WORDS["numbers"])
        return {
            "a": adjective,
            "i": item,
            "p": place,
            "p2": other_place,
            "f": foe,
            "fs": foes,
            "nm": choice(self._names),
            "r": choice(WORDS["roles"]),
            "e": choice(WORDS["elements"]),
            "n": number,
            "N": capitalized(number),
            "A": capitalized(adjective),
            "I": f"{capitalized(adjective)} {capitalized(item)}",
            "FS": capitalized(foes),
            "P": capitalized(place),
            "g": choice(GOLD),
        }

    def _item(self) -> tuple[str, str]:
        slots, choice = self._slots(), self._random.choice
        rarity = choice(WORDS["rarities"])
        name = f"{slots['a']} {slots['i']}"
        kind = WORDS["items"][slots["i"]]
        asked = choice(
            [
                "Describe the {} {}.",
                "Write a description for a {} {}.",
                "Item description: {} {}",
                "Tell me about the {} {}.",
                "What is the {} {}?",
            ]
        ).format(rarity, name)
        plural = slots["i"] in WORDS["plural_items"]
        look, power = choice(WORDS["looks"]), choice(WORDS["powers"][kind])
        if plural:
            for singular_words, plural_words in WORDS["look_plurals"].items():
                look = look.replace(singular_words, plural_words)
        pronoun = "they" if plural else "it"
        power = power.format(**{**slots, "a": pronoun if kind == "weapon" else slots["a"]})
        article, verb = ("These", "were") if plural else ("This", "was")
        story = (
            f"{article} {rarity} {name} {verb} made by {choice(WORDS['makers'])} in {slots['p']}. "
            f"{look}, and legend says that {power}. "
        )
        hint = choice(WORDS["hints"]).format(**slots)
        if plural:
            hint = hint.replace("for it", "for them").replace("It was", "They were").replace("It pairs", "They pair")
            hint = hint.replace("Sell it", "Sell them").replace("Keep it", "Keep them")
            hint = hint.replace("owning one", "owning a pair")
        return asked, story + hint

    def _npc(self) -> tuple[str, str]:
        slots, choice = self._slots(), self._random.choice
        mood, name, role = choice(WORDS["moods"]), slots["nm"], slots["r"]
        slots["nm"] = choice([other for other in self._names if other != name])
        asked = choice(
            [
                "You are {nm}, a {m} {r} in {p}. Greet the player.",
                "Speak as {nm}, a {m} {r} from {p}.",
                "NPC line: {m} {r} named {nm} in {p}.",
                "Write a line for {nm}, the {m} {r} of {p}.",
            ]
        ).format(nm=name, m=mood, r=role, p=slots["p"])
        work = self._random.sample(WORDS["work"][role], 2 if self._random.random() < 0.5 else 1)
        greeting = choice(WORDS["greetings"][mood]).format(**slots)
        introduction = choice(["I am {}, and ", "{} is my name, and ", "They call me {}, and "]).format(name)
        about = " and ".join(work).format(**slots)
        return asked, f"{greeting} {introduction}{about}. {choice(WORDS['closings']).format(**slots)}"

    def _quest(self) -> tuple[str, str]:
        slots, choice = self._slots(), self._random.choice
        title, story = choice(WORDS["quests"])
        reward = choice(WORDS["rewards"]).format(**slots)
        asked = (
            "Write a quest in {p} with {fs}.",
            "Give me a quest from {nm} the {r} in {p}.",
            "Quest idea: {fs}, {p}, {nm}",
            "Make a quest about {nm} the {r} and {fs} in {p}.",
        )[self._random.randrange(4)].format(**slots)
        return asked, f"Quest: {title.format(**slots)}. {story.format(**slots)} Reward: {reward}."

    def _bark(self) -> tuple[str, str]:
        slots, choice = self._slots(), self._random.choice
        moment = choice(list(WORDS["barks"]))
        asked = choice(
            [
                f"Battle cry for a {slots['r']} when they {moment} against {slots['fs']}.",
                f"Short {moment} line, {slots['r']}, fighting {slots['fs']} in {slots['p']}.",
            ]
        )
        return asked, choice(WORDS["barks"][moment]).format(**slots)

    def _json(self) -> tuple[str, str]:
        slots, choice = self._slots(), self._random.choice
        rarity = choice(WORDS["rarities"])
        name = f"{slots['a']} {slots['i']}"
        asked = choice(["Return JSON for a {} {}.", "JSON item: {} {}", "Create a JSON record of the {} {}."])
        level = WORDS["rarities"].index(rarity) * 10 + self._random.randrange(1, 10)
        record = {
            "name": name,
            "type": WORDS["items"][slots["i"]],
            "rarity": rarity,
            "element": slots["e"],
            "level": level,
            "price": level * 10,
        }
        return asked.format(rarity, name), json.dumps(record)

    def _mod(self) -> tuple[str, str]:
        slots, choice = self._slots(), self._random.choice
        label = choice(list(WORDS["chat_lines"]))
        line = choice(WORDS["chat_lines"][label]).format(**slots)
        if self._random.random() < 0.3:
            line += choice(["!", "!!", " lol", "...", " :)" if label in ("friendly", "neutral") else "?!"])
        if self._random.random() < 0.5:
            return f"Moderate: {line}", label
        return f"Label this chat message and explain: {line}", f"{label}. {WORDS['chat_reasons'][label]}"

    def _faq(self) -> tuple[str, str]:
        questions, answer = self._random.choice(WORDS["facts"])
        return self._random.choice(questions), answer

    def _hello(self) -> tuple[str, str]:
        greetings, answers = self._random.choice(WORDS["small_talk"])
        return self._random.choice(greetings), self._random.choice(answers)


def main() -> None:
    grammar = Grammar(1)
    for _ in range(14):
        print(grammar.example())
    examples = [grammar.example() for _ in range(60_000)]
    mean_length = sum(len(asked) + len(answered) for _, asked, answered in examples) / len(examples)
    print(
        f"{len({example[2] for example in examples})} distinct answers of {len(examples)}; {mean_length:.0f} characters"
    )


if __name__ == "__main__":
    main()
