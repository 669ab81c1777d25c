"""The demo's workload: several users, several turns, long shared documents of real text.

Two documents are read by two users each: the project's own licence and documents, and the language reference that
ships inside every Python. Users take turns in rounds, first those of one document, then those of the other. So in each
round the first reader of a document finds what the engine still holds of it, which is next to nothing when the other
document has just pushed it out, and the second reader finds all of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_PYTHON_TOPICS = ("objects", "execmodel", "naming", "exceptions", "class", "function", "with", "try", "import", "calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user: which document they read, and what they ask, one question a turn."""

    name: str
    document: str
    questions: tuple[str, ...]


USERS = (
    User(
        name="Ana",
        document="project",
        questions=(
            "In one sentence: what does the licence allow me to do?",
            "Must I state the changes I make to a file?",
            "Does the licence grant me the use of the project's trademarks?",
            "Who is liable when the software fails?",
            "What does the licence call a Contribution?",
        ),
    ),
    User(
        name="Ben",
        document="project",
        questions=(
            "What happens to my patent licence if I sue a contributor over the work?",
            "May I sell support for software under this licence?",
            "What must a copy of the work contain?",
            "What is a Derivative Work?",
            "May I add my own licence terms to my changes?",
        ),
    ),
    User(
        name="Chloe",
        document="python",
        questions=(
            "What is the identity of an object?",
            "What is the difference between a mutable and an immutable object?",
            "When is an object destroyed?",
            "What is a code block?",
            "How are names resolved in a class body?",
        ),
    ),
    User(
        name="Dev",
        document="python",
        questions=(
            "What does the operator 'is' compare?",
            "Can the type of an object change?",
            "What is a free variable?",
            "What happens when an exception is not handled?",
            "What is a frame?",
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request of the workload: which user asks what, in which round."""

    round_idx: int
    user: str
    document: str
    question: str


@dataclass(slots=True)
class Conversation:
    """What a user and the model have said so far; the document is its system message."""

    document_text: str
    messages: list[dict[str, str]] = field(default_factory=list)

    def prompt(self, tokenizer: Any, question: str) -> list[int]:
        """Return the token ids of the whole conversation with `question` as its last message."""
        system = {"role": "system", "content": f"Answer from this document, briefly.\n\n{self.document_text}"}
        messages = [system, *self.messages, {"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def add(self, question: str, answer: str) -> None:
        """Append a question and its answer."""
        self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def turns(num_rounds: int) -> list[Turn]:
    """Return the requests in the order in which they are sent."""
    longest = min(len(user.questions) for user in USERS)
    if not 2 <= num_rounds <= longest:
        raise ValueError(
            f"rounds must lie between 2 and {longest}, not {num_rounds}: in the first nothing is cached yet"
        )
    return [
        Turn(round_idx=round_idx, user=user.name, document=user.document, question=user.questions[round_idx])
        for round_idx in range(num_rounds)
        for user in USERS
    ]


def _project_text() -> str:
    files = [_ROOT / "LICENSE", _ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
    return "\n\n".join(path.read_text(encoding="utf-8") for path in files if path.is_file())


def _python_text() -> str:
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in _PYTHON_TOPICS if name in topics)
    return re.sub(r"[*=~]{3,}\n", "", text)


def documents(tokenizer: Any, num_tokens: int) -> dict[str, str]:
    """Return the documents, each cut to `num_tokens` tokens.

    Raises:
        ValueError: a document is shorter than that.
    """
    texts = {}
    for name, text in (("project", _project_text()), ("python", _python_text())):
        token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(token_ids) < num_tokens:
            raise ValueError(f"document {name!r} has {len(token_ids)} tokens; --document-tokens asks for {num_tokens}")
        texts[name] = tokenizer.decode(token_ids[:num_tokens])
    return texts
