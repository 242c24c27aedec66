"""Asks any chat server that speaks the OpenAI form (`/v1/chat/completions`): vLLM, SGLang, Ray Serve, hosted services.

Log-probabilities are taken where the server gives them. It lists only the most likely tokens, so two rules hold:

* Tokens that differ from a word only in white space around it count as the word, and their probabilities are added.
* A word that is not listed gets the largest probability it could have: that of the least likely listed token, or what the
  listed ones leave over where that is less. Its log-odds are therefore understated and never made up.

Where a server gives no log-probabilities the answer is its text alone, and there are no scores.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, JsonValue

from actors.media import ending
from actors.serving.endpoint import Endpoint
from actors.serving.engine import Answer, Question
from actors.serving.http import BudgetSpent, HttpClient
from actors.serving.shown import ClipFrames, Prepared, ask_distinct
from infra.config import Config

if TYPE_CHECKING:
    from PIL.Image import Image

PATH = "/v1/chat/completions"
KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
"""Kinds of picture that every server reads, as they are; others are sent as PNG."""
LEAST = 1e-12
"""Probability left over by listed tokens, at least: their sum is rounded."""


class ChatServer(Config):
    """A model behind a chat server. Its identity is what is served and how it is asked, never the address or the key."""

    model: str = Field(min_length=1)
    """Name under which the server knows the model."""
    revision: str = Field(min_length=1)
    """What the server serves under that name: a commit, a version or a date. Another one is another juror."""
    template: str = ""
    """Name or hash of the chat template, where the server was given another than the model's own."""
    log_probabilities: bool = True
    """Whether log-probabilities are asked for; some servers refuse the question."""
    top: int = Field(20, ge=1, le=20)
    """Most likely tokens whose log-probabilities are asked for."""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the largest number of tokens of an answer."""
    extra: dict[str, JsonValue] = Field({})
    """Further fields of every request, such as {"chat_template_kwargs": {"enable_thinking": false}}."""
    clips: ClipFrames = ClipFrames()
    """Which frames of a clip are shown; they are sent as pictures with their times."""
    tokens: int | None = Field(None, ge=1, exclude=True)
    """Budget of tokens, questions and answers together, of one worker; None: no limit."""
    endpoint: Endpoint = Field(exclude=True)
    """Address of the server, and the name of the variable that holds its key; no part of the identity."""

    def open(self) -> OpenChatServer:
        """Nothing is sent yet; raises ConfigError where the key's variable is not set."""
        return OpenChatServer(self)


class OpenChatServer:
    """A client of the server."""

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        self.client = HttpClient(server.endpoint)
        self.spent = 0
        """Tokens so far, as the server counts them."""

    def ask(self, questions: Sequence[Question]) -> list[Answer | Exception]:
        """Answers in the order of the questions; an exception in the place of a question that has none.

        Raises ServerUnavailable where no question can be answered.
        """
        clips = self.server.clips.model_copy(update={"as_video": False})
        return ask_distinct(questions, clips=clips, ask=lambda asked: list(self.client.gather(self._answer, asked)))

    async def _answer(self, one: Prepared) -> Answer | Exception:
        try:
            messages = messages_of(one)
        except (OSError, ValueError) as error:
            return error
        if self.server.tokens is not None and self.spent >= self.server.tokens:
            raise BudgetSpent(f"the budget of {self.server.tokens} tokens is spent; run again, or raise it (tokens)")
        found = await self.client.post(PATH, self._body(one.question, messages))
        try:
            self.spent += int((found.get("usage") or {}).get("total_tokens") or 0)
            return answer_of(found["choices"][0], one.question)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self.client.failed(PATH, f"no answer of a chat ({type(error).__name__}: {error})") from error

    def _body(self, question: Question, messages: list[dict[str, Any]]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.server.model, "messages": messages}
        if question.answers:
            body |= {self.server.length_field: 1, "temperature": 0}
            if self.server.log_probabilities:
                body |= {"logprobs": True, "top_logprobs": self.server.top}
        else:
            body |= {self.server.length_field: question.max_tokens, "temperature": question.temperature}
            if question.temperature > 0:
                body |= {"top_p": question.top_p, "seed": question.seed % 2**63}
        return body | self.server.extra


def messages_of(one: Prepared) -> list[dict[str, Any]]:
    """The conversation with its pictures as data URLs; raises OSError or ValueError for one that does not decode."""
    urls = _data_urls(one)
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image_url", "image_url": {"url": next(urls)}} if part["type"] == "image" else part
                for part in message["content"]
            ],
        }
        for message in one.conversation
    ]


def _data_urls(one: Prepared) -> Iterator[str]:
    for medium in one.media:
        frames = medium.load()  # also to see that a picture decodes that is then sent as it is
        kind = KINDS.get(ending(medium.source)) if isinstance(medium.source, bytes) else None
        if isinstance(medium.source, bytes) and kind is not None:
            yield f"data:{kind};base64,{base64.b64encode(medium.source).decode()}"
        else:
            yield from (_png(frame) for frame in frames)


def _png(picture: Image) -> str:
    import numpy as np

    from actors.media import encode_png

    return f"data:image/png;base64,{base64.b64encode(encode_png(np.asarray(picture)).bytes).decode()}"


def answer_of(choice: dict[str, Any], question: Question) -> Answer:
    """The answer in one choice of a response; raises KeyError, TypeError or ValueError where it has another form."""
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise ValueError(f"the content is {type(text).__name__} and no text")
    if not question.answers:
        return Answer(text, ended=choice.get("finish_reason") == "stop")
    positions = (choice.get("logprobs") or {}).get("content") or []
    if not positions:
        return Answer(text)
    listed = [(str(one["token"]), float(one["logprob"])) for one in positions[0]["top_logprobs"]]
    return Answer(text, word_log_probabilities(listed, question.answers)) if listed else Answer(text)


def word_log_probabilities(listed: Sequence[tuple[str, float]], words: Sequence[str]) -> dict[str, float]:
    """The log-probability of each word from those of the most likely tokens, by the two rules above; nan stays nan."""
    values = [value for _, value in listed]
    if any(math.isnan(value) for value in values):
        return dict.fromkeys(words, math.nan)
    left = 1.0 - math.fsum(math.exp(value) for value in values)
    bound = min(*values, math.log(max(left, LEAST)))
    found: dict[str, float] = {}
    for word in words:
        own = [value for token, value in listed if token.strip() == word]
        found[word] = math.log(math.fsum(math.exp(value) for value in own)) if own else bound
    return found
