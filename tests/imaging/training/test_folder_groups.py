"""The further columns of a labelled folder's list: every case has its own values, every column its own name."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from featherweight.apps.imaging.training.folder import read_labelled

LIST = """path,site,label,patient,split,view
a.png,north,0,p1,train,front
b.png,south,1,p2,train,side
c.png,south,0,p3,validation,front
d.png,,1,p4,validation,side
e.png,east,0,p5,test,front
f.png,west,1,p6,test,
"""


def test_of_two_columns_every_case_has_its_own_values(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(LIST)
    for line in LIST.splitlines()[1:]:
        Image.new("L", (8, 8)).save(tmp_path / line.partition(",")[0])
    split = read_labelled(tmp_path, side=8)
    parts = (split.train, split.validation, split.test)
    assert [{name: values.tolist() for name, values in part.groups.items()} for part in parts] == [
        {"site": ["north", "south"], "view": ["front", "side"]},
        {"site": ["south", "(unknown)"], "view": ["front", "side"]},
        {"site": ["east", "west"], "view": ["front", "(unknown)"]},
    ]
