"""Train npc-1.9m from nothing: corpus, tokenizer, weights. Writes a folder in the Hugging Face format.

    python train.py --out ../npc-1.9m/hf --seconds 420

Needs torch, transformers, tokenizers and safetensors, which the project itself never does. The same seed gives the same
corpus and tokenizer; the weights depend on how many steps the machine manages in the given time.
"""

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from grammar import Grammar
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

PAD, BOS, END, USER, ASSISTANT, SYSTEM = range(6)
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a game assistant.",
    "Answer briefly.",
    "You write for a fantasy game.",
    "Be concise and stay in character.",
    "You are a helpful assistant for a game studio.",
]
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ '<|system|>' + m['content'] + '<|end|>' }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>' + m['content'] + '<|end|>' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>' + m['content'] + '<|end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TOKENIZER_EXAMPLES = 20_000
WEIGHT_ANSWER, WEIGHT_QUESTION, WEIGHT_FRAME = 1.0, 0.1, 0.0
"""How much a token counts in the loss: what the assistant says, what the user says, the frame around both."""

Conversation = tuple[list[int], list[float]]
"""Token ids and the weight of each in the loss."""


@dataclass
class Rows:
    """Packed training rows: ids that are read, ids to be predicted, and weights of those; each [rows, length]."""

    read: torch.Tensor
    predicted: torch.Tensor
    weights: torch.Tensor


def train_tokenizer(examples: list[tuple[str, str, str]], vocabulary: int) -> Tokenizer:
    """Byte-level BPE, so that any text has ids and any ids have bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    texts = (text for example in examples[:TOKENIZER_EXAMPLES] for text in example[1:])
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def conversations(examples: list[tuple[str, str, str]], tokenizer: Tokenizer, seed: int) -> list[Conversation]:
    """Examples as token ids. Some 15 % continue the conversation before them, 25 % begin with a system prompt."""
    rng = random.Random(seed)
    asked = tokenizer.encode_batch([example[1] for example in examples], add_special_tokens=False)
    answered = tokenizer.encode_batch([example[2] for example in examples], add_special_tokens=False)
    system = [tokenizer.encode(prompt).ids for prompt in SYSTEM_PROMPTS]
    made: list[Conversation] = []
    for question, answer in zip(asked, answered, strict=True):
        draw = rng.random()
        if draw > 0.15 or not made:
            made.append(([BOS], [WEIGHT_FRAME]))
        ids, weights = made[-1]
        if draw > 0.75:
            prompt = rng.choice(system)
            ids += [SYSTEM, *prompt, END]
            weights += [WEIGHT_FRAME] * (len(prompt) + 2)
        ids += [USER, *question.ids, END, ASSISTANT, *answer.ids, END]
        weights += [WEIGHT_FRAME, *[WEIGHT_QUESTION] * (len(question.ids) + 1), WEIGHT_FRAME]
        weights += [WEIGHT_ANSWER] * (len(answer.ids) + 1)
    return made


def pack(made: list[Conversation], length: int) -> Rows:
    """Greedy: a row begins where a conversation begins, and its rest is padding of no weight."""
    rows: list[Conversation] = []
    ids: list[int] = []
    weights: list[float] = []
    for more_ids, more_weights in made:
        if len(ids) + min(len(more_ids), length + 1) > length + 1:
            rows.append((ids, weights))
            ids, weights = [], []
        ids = ids + more_ids[: length + 1]
        weights = weights + more_weights[: length + 1]
    rows.append((ids, weights))
    all_ids = torch.tensor([row + [PAD] * (length + 1 - len(row)) for row, _ in rows])
    all_weights = torch.tensor([row + [0.0] * (length + 1 - len(row)) for _, row in rows])
    return Rows(all_ids[:, :-1].contiguous(), all_ids[:, 1:].contiguous(), all_weights[:, 1:].contiguous())


def make_model(arguments: argparse.Namespace) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=arguments.vocabulary,
            hidden_size=arguments.hidden,
            intermediate_size=arguments.feed_forward,
            num_hidden_layers=arguments.layers,
            num_attention_heads=arguments.heads,
            num_key_value_heads=arguments.kv_heads,
            head_dim=arguments.hidden // arguments.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=END,
            pad_token_id=PAD,
            rms_norm_eps=1e-5,
        )
    )


def fit(model: LlamaForCausalLM, rows: Rows, arguments: argparse.Namespace) -> list[tuple[int, float, float]]:
    """Train for `arguments.seconds`. Muon moves the matrices, AdamW the rest; the rate falls in a line to 3 %.

    Returns (step, seconds, smoothed loss) every 25 steps.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=arguments.muon_rate, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=arguments.rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    count, position = len(rows.read), 0
    order = torch.randperm(count)
    began, step, smoothed = time.monotonic(), 0, None
    log: list[tuple[int, float, float]] = []
    while (spent := time.monotonic() - began) < arguments.seconds:
        scale = min(1.0, (step + 1) / 20) * (1 - 0.97 * spent / arguments.seconds)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
        if position + arguments.batch > count:
            order, position = torch.randperm(count), 0
        chosen = order[position : position + arguments.batch]
        position += arguments.batch
        loss = weighted_loss(model, rows, chosen)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        smoothed = loss.item() if smoothed is None else smoothed * 0.95 + loss.item() * 0.05
        if step % 25 == 0:
            log.append((step, round(spent, 1), round(smoothed, 4)))
            print(f"step {step}  {spent:.0f} s  loss {smoothed:.4f}", flush=True)
    return log


def weighted_loss(model: LlamaForCausalLM, rows: Rows, chosen: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=rows.read[chosen], use_cache=False).logits.float()
    each = torch.nn.functional.cross_entropy(
        logits.view(-1, logits.size(-1)), rows.predicted[chosen].view(-1), reduction="none"
    )
    weights = rows.weights[chosen].view(-1)
    return (each * weights).sum() / weights.sum()


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Half-precision weights, tokenizer, chat template, and how to sample when a request does not say."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    write_json(folder / "special_tokens_map.json", names)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **names,
            "model_max_length": 2048,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": BOS,
            "eos_token_id": END,
            "pad_token_id": PAD,
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 0.95,
        },
    )


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seconds", type=float, default=420, help="how long to train (default %(default)s)")
    parser.add_argument("--examples", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vocabulary", type=int, default=1536)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--kv-heads", type=int, default=1)
    parser.add_argument("--feed-forward", type=int, default=512)
    parser.add_argument("--row", type=int, default=256, help="tokens in a training row")
    parser.add_argument("--batch", type=int, default=32, help="rows in a step")
    parser.add_argument("--rate", type=float, default=4e-3, help="AdamW's learning rate")
    parser.add_argument("--muon-rate", type=float, default=0.02, help="Muon's learning rate")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_num_threads(2)
    grammar = Grammar(arguments.seed + 1, held_out=False)
    examples = [grammar.example() for _ in range(arguments.examples)]
    tokenizer = train_tokenizer(examples, arguments.vocabulary)
    rows = pack(conversations(examples, tokenizer, arguments.seed), arguments.row)
    model = make_model(arguments)
    model.train()
    print(f"{len(rows.read)} rows, {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    log = fit(model, rows, arguments)
    save(model, tokenizer, arguments.out)
    print(f"saved {arguments.out}; last: {log[-1] if log else 'no full 25 steps'}")


if __name__ == "__main__":
    main()
