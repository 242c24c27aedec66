"""A juror without weights here: a model behind a chat server, asked by a questionnaire."""

from __future__ import annotations

from actors.serving.openai import ChatServer
from infra.dag.stage import Places
from pipelines.algorithms.prompting.grammar import AnswerGrammar
from pipelines.algorithms.prompting.ranking import Ranking
from pipelines.models.jurors.asking import AnyQuestionnaire, OpenAskedJuror
from pipelines.models.jurors.juror import Juror, OpenJuror


class ServedJuror(Juror):
    """A served model asked by a questionnaire.

    ServedJuror(
        name="qwen",
        server=ChatServer(model="Qwen2-VL-7B", revision="a28a094e", endpoint=Endpoint(base_url="http://127.0.0.1:8000")),
        questionnaire=Pairwise(),
    )
    """

    server: ChatServer
    """What is served, and where."""
    questionnaire: AnyQuestionnaire
    """How it is asked."""
    grammar: AnswerGrammar | None = None
    """How free text is read, reasoning included; None: the answer is the first token, with scores where the server gives
    log-probabilities."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those of the questionnaire."""
        return self.questionnaire.dimensions

    @property
    def ranks(self) -> bool:
        """Whether the questionnaire is a ranking."""
        return isinstance(self.questionnaire, Ranking)

    def open(self, device: str, places: Places) -> OpenJuror:
        """Reads the key from the environment; the device is the server's affair."""
        return OpenAskedJuror(self.server.open(), questionnaire=self.questionnaire, grammar=self.grammar)
