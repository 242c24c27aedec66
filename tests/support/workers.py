"""Several trainings in one start of the workers, which takes longer than they do."""

from pathlib import Path

import torch.distributed as dist

from actors.training.launch import LocalSession, Session, scratch_folder
from actors.training.trainer import Training, train


class Part(LocalSession):
    """One of several trainings of the same workers, in a folder of its own."""

    def __init__(self, whole: Session, name: str) -> None:
        super().__init__(whole.folder / name)
        self.rank, self.world = whole.rank, whole.world

    def commit(self, checkpoint: Path | None) -> None:
        if checkpoint is not None:
            super().commit(checkpoint)
        dist.barrier()


def one_after_another(jobs: dict[str, Training], session: Session) -> None:
    """All jobs in one start of the workers."""
    for name, job in jobs.items():
        train(job, Part(session, name))
    if session.rank > 0:
        session.commit(None)
        return
    with scratch_folder(session.folder) as folder:
        (folder / "done").touch()
        session.commit(folder)
