"""The chat server's client against a real server: scores, texts, pictures, and every way to fail."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest

from actors.media import encode_mp4, encode_png
from actors.serving.endpoint import Endpoint
from actors.serving.engine import Answer, Question
from actors.serving.http import BudgetSpent, RequestFailed, ServerUnavailable
from actors.serving.openai import ChatServer, word_log_probabilities
from infra.identity import canonical, dumps
from pipelines.algorithms.prompting.grammar import AnswerGrammar
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.models.jurors.juror import Case
from pipelines.models.jurors.served import ServedJuror
from tests.support.http_server import Reply, serving
from tests.support.places import NOWHERE

FAST = {"first_wait_s": 0.01, "timeout_s": 2.0, "tries": 3, "unreachable_s": 0.2}
PICTURE = encode_png(np.full((8, 8, 3), 90, dtype=np.uint8)).bytes
OTHER = encode_png(np.full((8, 8, 3), 200, dtype=np.uint8)).bytes
ASKED = Question((0, "or", 1, "which?"), (PICTURE, OTHER), ("A", "B", "tie"))


def reply(text, top=None, **usage):
    listed = [{"token": token, "logprob": math.log(share)} for token, share in (top or {}).items()]
    logprobs = {"content": [{"token": text, "top_logprobs": listed}]} if top else None
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": logprobs}
    return Reply(body={"choices": [choice], "usage": usage})


def server(url, **options):
    own = {name: options.pop(name) for name in list(options) if name in ChatServer.model_fields}
    return ChatServer(model="m", revision="1", endpoint=Endpoint(base_url=url, **FAST | options), **own)


def asked(answer, questions=(ASKED,), **options):
    with serving(answer) as running:
        return server(running.url, **options).open().ask(list(questions)), running.asked


def test_words_have_the_servers_log_probabilities_and_pictures_go_as_they_are():
    ((answer,), (request,)) = asked(lambda _: reply("A", {"A": 0.5, " A": 0.1, "B": 0.2, "tie": 0.1}))
    assert {w: math.exp(v) for w, v in answer.log_probabilities.items()} == pytest.approx({"A": 0.6, "B": 0.2, "tie": 0.1})
    shown = [part["image_url"]["url"] for part in request.body["messages"][0]["content"] if part["type"] == "image_url"]
    assert [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in shown] == [PICTURE, OTHER]
    assert (request.body["max_tokens"], request.body["top_logprobs"]) == (1, 20)


def test_a_word_that_is_not_listed_is_as_likely_as_it_can_be_at_most():
    found = word_log_probabilities([("A", math.log(0.9)), ("x", math.log(0.06))], ("A", "B"))
    assert math.exp(found["B"]) == pytest.approx(0.04)
    found = word_log_probabilities([("A", math.log(0.5)), ("x", math.log(0.1))], ("A", "B"))
    assert math.exp(found["B"]) == pytest.approx(0.1)
    assert all(map(math.isnan, word_log_probabilities([("A", math.nan)], ("A", "B")).values()))


def test_without_log_probabilities_the_text_is_the_answer_and_there_is_no_score():
    with serving(lambda _: reply("B")) as running:
        juror = ServedJuror(name="j", server=server(running.url, log_probabilities=False), questionnaire=Pairwise())
        (((opinion,),)) = juror.open("cpu", NOWHERE).judge([Case("a box", PICTURE, OTHER)])
        assert "logprobs" not in running.asked[0].body
    assert (opinion.choice, opinion.score, opinion.raw) == ("second", None, "B")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A is sharp, B is not.\nAnswer: A", "first"),
        ("<think>Answer: B?</think>\n**tie**", "tie"),
        ("I think that A", "unparsable"),
        ("Answer: A or B", "unparsable"),
    ],
)
def test_free_text_is_read_by_the_grammar_and_never_guessed(text, choice):
    with serving(lambda _: reply(text)) as running:
        juror = ServedJuror(name="j", server=server(running.url), questionnaire=Pairwise(), grammar=AnswerGrammar())
        ((opinion,),) = juror.open("cpu", NOWHERE).judge([Case("a box", PICTURE, OTHER)])
        body = running.asked[0].body
    assert (opinion.choice, opinion.raw) == (choice, text)
    assert body["max_tokens"] == 1024 and "A, B, tie" in body["messages"][0]["content"][-1]["text"]


def test_a_clip_is_sent_as_its_frames_with_their_times():
    clip = encode_mp4(np.zeros((8, 16, 16, 3), dtype=np.uint8), fps=8).bytes
    (_, (request,)) = asked(lambda _: reply("A"), [Question((0, "moves?"), (clip,), ("A",))])
    content = request.body["messages"][0]["content"]
    assert [part["text"] for part in content if part["type"] == "text"] == ["at 0 s: ", "at 0.5 s: ", "moves?"]
    assert sum(part["type"] == "image_url" for part in content) == 2


def test_a_refused_key_ends_the_stage():
    with pytest.raises(ServerUnavailable, match="401"):
        asked(lambda _: Reply(status=401, body={"error": "no"}))


@pytest.mark.parametrize("status", [429, 500])
def test_a_transient_failure_is_tried_again(status):
    (answers, requests) = asked(lambda one: Reply(status=status) if one.number == 0 else reply("A", {"A": 0.9}))
    assert isinstance(answers[0], Answer) and len(requests) == 2


@pytest.mark.parametrize(
    "nonsense",
    [b"<html>", {}, [], {"choices": []}, {"choices": [{"message": {"content": None}}]}, {"choices": [{"message": "A"}]}],
)
def test_nonsense_fails_its_own_question(nonsense):
    def answer(one):
        bad = "second" in str(one.body)
        return Reply(body=nonsense) if bad else reply("A", {"A": 0.9})

    (answers, _) = asked(answer, [ASKED, Question((0, "second"), (PICTURE,), ("A",))], in_flight=1)
    assert isinstance(answers[0], Answer) and isinstance(answers[1], RequestFailed)


def test_a_server_that_never_answers_is_not_waited_for():
    with pytest.raises(ServerUnavailable, match="answers nothing"):
        asked(lambda _: Reply(wait_s=5.0), timeout_s=0.1)


def test_a_picture_that_does_not_decode_is_not_sent():
    (answers, requests) = asked(lambda _: reply("A", {"A": 0.9}), [Question((0, "good?"), (PICTURE[:40],), ("A",)), ASKED])
    assert isinstance(answers[0], OSError) and isinstance(answers[1], Answer) and len(requests) == 1


def test_no_question_is_sent_when_the_budget_of_tokens_is_spent():
    questions = [Question((str(n),), (), ("A",)) for n in range(4)]
    (answers, requests) = asked(lambda _: reply("A", total_tokens=60), questions, tokens=100, in_flight=1)
    assert [type(one) for one in answers] == [Answer, Answer, BudgetSpent, BudgetSpent] and len(requests) == 2


def test_the_identity_is_what_is_served_and_never_where():
    one, other = server("http://127.0.0.1:1"), server("http://127.0.0.2:2", tokens=5, in_flight=3)
    assert canonical(one) == canonical(other)
    assert "127.0.0" not in dumps(canonical(one))
    assert canonical(one) != canonical(one.model_copy(update={"revision": "2"}))
