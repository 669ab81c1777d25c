"""The demo's requests: who asks what in which order, and what a prompt is made of."""

from __future__ import annotations

import pytest

from demo.workload import USERS, Conversation, documents, turns


class WordTokenizer:
    """Knows words, so that a prompt's ids are as many as its words."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[str]]:
        return {"input_ids": text.split()}

    def decode(self, token_ids: list[str]) -> str:
        return " ".join(token_ids)

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        return " ".join(f"<{message['role']}> {message['content']}" for message in messages)


def test_readers_of_one_document_come_one_after_the_other_and_the_documents_alternate() -> None:
    order = [turn.document for turn in turns(2)]
    assert order == ["project", "project", "python", "python"] * 2


def test_every_user_asks_a_new_question_each_round() -> None:
    asked = [(turn.user, turn.question) for turn in turns(4)]
    assert len(set(asked)) == len(asked) == 4 * len(USERS)


@pytest.mark.parametrize("num_rounds", [0, 1, 6])
def test_a_number_of_rounds_that_proves_nothing_or_has_no_questions_is_refused(num_rounds: int) -> None:
    with pytest.raises(ValueError, match="rounds must lie between 2 and 5"):
        turns(num_rounds)


def test_a_later_prompt_of_a_conversation_begins_with_the_earlier_one() -> None:
    tokenizer = WordTokenizer()
    talk = Conversation("The text.")
    first = talk.prompt(tokenizer, "Why?")
    talk.add("Why?", "Because.")
    assert talk.prompt(tokenizer, "Really?")[: len(first)] == first


def test_documents_are_real_text_cut_to_the_asked_length() -> None:
    texts = documents(WordTokenizer(), 2000)
    assert {name: len(text.split()) for name, text in texts.items()} == {"project": 2000, "python": 2000}
    assert "Apache License" in texts["project"]


def test_a_document_that_is_too_short_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"document 'project' has \d+ tokens; --document-tokens asks for 1000000"):
        documents(WordTokenizer(), 1_000_000)
