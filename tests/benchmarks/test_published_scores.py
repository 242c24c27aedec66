"""The script that compares with published values runs, here with a model of the right class and random weights."""

from PIL import Image

from tests.benchmarks.published_scores import main
from tests.support.tiny_scorers import picture, write_clip


def test_every_published_value_stands_beside_a_computed_one(tmp_path, capsys):
    weights = str(write_clip(tmp_path / "clip"))
    Image.fromarray(picture(0)).save(tmp_path / "000000039769.jpg")
    Image.fromarray(picture(1)).save(tmp_path / "one.png")
    (tmp_path / "one.txt").write_text("a red fox\n")
    main(["--clip", weights, "--pickscore", weights, "--pictures", str(tmp_path), "--samples", str(tmp_path)])
    lines = capsys.readouterr().out.partition("published       here  of\n")[2].splitlines()
    assert [line.split()[:2] for line in lines] == [["clip", "24.5701"], ["clip", "19.3049"], ["pickscore", "20.5700"]]
    assert all(float(line.split()[2]) < 100 for line in lines)
