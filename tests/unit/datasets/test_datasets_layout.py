"""Which files are one slide, by what name each is sent, and which annotations belong to which slide."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from cytomine_spawner.datasets import files as dataset_files
from cytomine_spawner.datasets import slides as dataset_slides
from cytomine_spawner.datasets.errors import DatasetError
from cytomine_spawner.datasets.files import Dataset

STRANGE = [
    "H47 HSIL.png",
    "AGAR15+IgG.png",
    "50%_tumor.png",
    "Größe.png",
    "a&b=c.png",
    "a#b.png",
    "a;b,c.png",
]
STRANGE += [
    '"a".png',
    "a'b.png",
    "a\\b.png",
    "日本.png",
    "-a.png",
    "a?.png",
    "a b.ome.tif",
    "(1).png",
    "a..png",
    "png",
]


def lay(folder: Path, *names: str) -> Path:
    """A dataset of these files, with something in each."""
    for name in names:
        path = folder / "DATASET_x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder / "DATASET_x"


def read(folder: Path, *names: str) -> Dataset:
    return dataset_files.read(lay(folder, *names))


def matched(dataset: Dataset) -> dict[str, list[str]]:
    return {i.main.name: [p.name for p in i.annotations] for i in dataset.images if i.annotations}


# -- names ------------------------------------------------------------------------------------------------


def test_names_that_servers_read_in_their_own_ways_are_not_sent(tmp_path: Path) -> None:
    images = read(tmp_path, *(f"IMAGES/I{n}/{name}" for n, name in enumerate(STRANGE))).images
    assert sorted(i.name for i in images) == sorted(STRANGE)
    assert len({i.sent for i in images}) == len(STRANGE)
    for image in images:
        assert image.sent.isascii()
        assert not set(image.sent) & set(" %#&;,+='\"\\/?()")
        assert Path(image.sent).suffix in (image.main.suffix, "")


def test_plain_names_are_sent_as_they_are(tmp_path: Path) -> None:
    names = ["skin.svs", "skin-large.tif", "cells.ome.tif", "A_1.2-3.ndpi"]
    images = read(tmp_path, *(f"IMAGES/I{n}/{name}" for n, name in enumerate(names))).images
    assert [(i.sent, i.name) for i in images] == [(n, n) for n in names]


def test_the_same_file_name_in_two_folders_is_two_images(tmp_path: Path) -> None:
    images = read(tmp_path, "IMAGES/CASE_1/HE.png", "IMAGES/CASE_2/HE.png", "IMAGES/C/CASE_1-HE.png").images
    assert len({i.sent for i in images}) == 3
    assert sorted(i.name for i in images) == ["CASE_1-HE.png", "CASE_1-HE.png (2)", "CASE_2-HE.png"]
    again = dataset_files.read(tmp_path / "DATASET_x").images
    assert [i.sent for i in again] == [i.sent for i in images]


def test_a_folder_of_images_is_each_of_them_and_of_anything_else_it_is_a_fault(tmp_path: Path) -> None:
    images = read(tmp_path / "a", *(f"IMAGES/IMAGE_1/{n}" for n in STRANGE[:5])).images
    assert sorted(i.name for i in images) == sorted(STRANGE[:5])
    with pytest.raises(DatasetError, match=r"IMAGE_1 holds several files that are not DICOM"):
        read(tmp_path / "b", "IMAGES/IMAGE_1/a.png", "IMAGES/IMAGE_1/a.txt")
    folder = lay(tmp_path / "c", "IMAGES/IMAGE_1/a.png", "IMAGES/IMAGE_1/b.png")
    (folder / "IMAGES/IMAGE_1/b.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"IMAGE_1 holds several files that are not DICOM"):
        dataset_files.read(folder)


@pytest.mark.parametrize(
    "left", [".DS_Store", "._a.png", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "__MACOSX/a.png"]
)
def test_what_systems_leave_behind_is_nothing_of_a_dataset(tmp_path: Path, left: str) -> None:
    there = [f"{place}/{left}" for place in ("IMAGES", "IMAGES/I", "IMAGES/D", "ANNOTATIONS")]
    dataset = read(tmp_path, "IMAGES/I/a.png", "IMAGES/D/1.dcm", "ANNOTATIONS/a.geojson", *there)
    assert [[p.name for p in i.files] for i in dataset.images] == [["1.dcm"], ["a.png"]]
    assert matched(dataset) == {"a.png": ["a.geojson"]}
    assert (dataset.faults, dataset.notes) == ([], [])


# -- slides of several files ------------------------------------------------------------------------------

VMS = "[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=s.jpg\nImageFile(1,0)=s(1,0).jpg\nMapFile=s_map.jpg\n"


def packed(image: dataset_files.ImageFiles, folder: Path) -> list[str]:
    dataset_slides.pack(image, folder / "x.zip")
    with zipfile.ZipFile(folder / "x.zip") as content:
        assert content.testzip() is None
        return sorted(content.namelist())


@pytest.mark.parametrize("place", ["IMAGES/I", "IMAGES"])
def test_an_mrxs_is_sent_whole_in_one_folder(tmp_path: Path, place: str) -> None:
    parts = [f"{place}/s/{n}" for n in ("Slidedat.ini", "Data0000.dat", "deep/Data0001.dat", ".DS_Store")]
    (image,) = read(tmp_path, f"{place}/s.mrxs", *parts).images
    assert (image.name, image.sent) == ("s.mrxs", "s.mrxs.zip")
    wanted = ["s.mrxs/s.mrxs", "s.mrxs/s/Data0000.dat", "s.mrxs/s/Slidedat.ini", "s.mrxs/s/deep/Data0001.dat"]
    assert packed(image, tmp_path) == wanted


@pytest.mark.parametrize("there", [[], ["IMAGES/I/s/Data0000.dat"]])
def test_an_mrxs_without_its_folder_is_named_with_what_is_missing(tmp_path: Path, there: list[str]) -> None:
    missing = r"I/s/Slidedat\.ini" if there else "I/s"
    with pytest.raises(DatasetError, match=rf"s\.mrxs is a slide with a folder .*{missing} is missing"):
        read(tmp_path, "IMAGES/I/s.mrxs", *there)


@pytest.mark.parametrize("place", ["IMAGES/I", "IMAGES"])
def test_a_vms_is_sent_with_the_files_that_it_names(tmp_path: Path, place: str) -> None:
    folder = lay(tmp_path, *(f"{place}/{n}" for n in ("s.vms", "s.jpg", "s(1,0).jpg", "s_map.jpg")))
    (folder / place / "s.vms").write_text(VMS)
    (image,) = dataset_files.read(folder).images
    names = ["s(1,0).jpg", "s.jpg", "s.vms", "s_map.jpg"]
    assert packed(image, tmp_path) == [f"s.vms/{n}" for n in names]
    (folder / place / "s_map.jpg").unlink()
    with pytest.raises(DatasetError, match=r"s\.vms is a slide of several files, and s_map\.jpg is missing"):
        dataset_files.read(folder)


@pytest.mark.parametrize("text", ["", "no ini", "[x]\nImageFile=../../secret\n"])
def test_a_vms_that_names_nothing_or_what_is_elsewhere_is_refused(tmp_path: Path, text: str) -> None:
    folder = lay(tmp_path, "IMAGES/I/s.vms")
    (folder / "secret").write_text("x")
    (folder / "IMAGES/I/s.vms").write_text(text)
    with pytest.raises(DatasetError, match=r"s\.vms is .* try again"):
        dataset_files.read(folder)


def test_dicom_files_are_sent_in_a_folder_with_the_name_of_the_slide(tmp_path: Path) -> None:
    plain, strange = read(tmp_path, "IMAGES/B/1.dcm", "IMAGES/B/2.dcm", "IMAGES/a b/1.dcm").images
    assert (plain.name, plain.sent) == ("B", "B.zip")
    assert packed(plain, tmp_path) == ["B/1.dcm", "B/2.dcm"]
    assert strange.name == "a b"
    assert packed(strange, tmp_path) == [f"{strange.upload}/1.dcm"]


# -- which annotations belong to which slide --------------------------------------------------------------


@pytest.mark.parametrize(
    ("slides", "file", "wanted"),
    [
        (["HE.1.svs", "HE.3.svs"], "HE.3.geojson", "HE.3.svs"),
        (["HE.1.svs", "HE.3.svs"], "HE.2.geojson", None),
        (["HE.1.svs", "HE.3.svs"], "HE.geojson", None),
        (["a.svs", "a-b.svs"], "a-b-tissue.geojson", "a-b.svs"),
        (["a.svs", "a-b.svs"], "a-c.geojson", "a.svs"),
        (["a1.svs"], "a10.geojson", None),
        (["a1.svs"], "a1.geojson", "a1.svs"),
        (["a1.svs"], "a1.svs.geojson", "a1.svs"),
        (["a1.svs"], "a1 tissue.json", "a1.svs"),
        (["a1.svs"], "A1.geojson", None),
        (["cells.ome.tif"], "cells-nuclei.geojson", "cells.ome.tif"),
        (["cells.ome.tif"], "cells.ome.tif.geojson", "cells.ome.tif"),
        (["Gro\u0308ße.svs"], "Gr\u00f6ße.geojson", "Gro\u0308ße.svs"),
        (["a.svs"], "IMAGE_0.geojson", "a.svs"),
        (["a.svs", "b.svs"], "IMAGE_1-x.geojson", "b.svs"),
        (["a.svs"], "IMAGE_01.geojson", None),
        (["a.svs", "b.svs"], "IMAGE_1/a.geojson", "b.svs"),
        (["a.svs", "b.svs"], "deep/b.geojson", "b.svs"),
    ],
)
def test_a_file_belongs_to_the_slide_whose_whole_name_it_begins_with(
    tmp_path: Path, slides: list[str], file: str, wanted: str | None
) -> None:
    there = [f"IMAGES/IMAGE_{n}/{name}" for n, name in enumerate(slides)]
    dataset = read(tmp_path, *there, f"ANNOTATIONS/{file}")
    name = Path(file).name
    if wanted is None:
        assert matched(dataset) == {}
        (fault,) = dataset.faults
        assert f"ANNOTATIONS/{file} of" in fault
        assert fault.endswith("try again.")
    else:
        assert matched(dataset) == {wanted: [name]}
        assert dataset.faults == []


def test_what_may_belong_to_several_slides_is_named_and_an_alias_or_a_folder_tells(tmp_path: Path) -> None:
    files = ["ANNOTATIONS/HE.geojson", "ANNOTATIONS/CASE_1-HE.geojson", "ANNOTATIONS/CASE_2/HE.geojson"]
    dataset = read(tmp_path, "IMAGES/CASE_1/HE.png", "IMAGES/CASE_2/HE.png", *files)
    (fault,) = dataset.faults
    assert "ANNOTATIONS/HE.geojson of" in fault
    assert "several images" in fault
    found = {
        i.alias: [str(p.relative_to(tmp_path / "DATASET_x")) for p in i.annotations] for i in dataset.images
    }
    assert found == {"CASE_1": files[1:2], "CASE_2": files[2:]}


def test_other_kinds_of_files_are_named_and_need_no_mending(tmp_path: Path) -> None:
    dataset = read(
        tmp_path, "IMAGES/I/a.png", "ANNOTATIONS/a.xml", "ANNOTATIONS/a.csv", "ANNOTATIONS/a.geojson"
    )
    assert matched(dataset) == {"a.png": ["a.geojson"]}
    assert dataset.faults == []
    assert dataset.notes == ["ANNOTATIONS/a.csv, ANNOTATIONS/a.xml, for only GeoJSON is read"]


def describe(folder: Path, text: str) -> Dataset:
    (folder / "METADATA").mkdir(exist_ok=True)
    (folder / "METADATA/annotation.xml").write_text(text)
    return dataset_files.read(folder)


def test_the_metadata_says_it_with_several_files_namespaces_and_other_kinds(tmp_path: Path) -> None:
    names = ["1.geojson", "2.GeoJSON", "2.xml", "3.geojson", "b.geojson"]
    folder = lay(tmp_path, "IMAGES/I/a.png", "IMAGES/J/b.png", *(f"ANNOTATIONS/{n}" for n in names))
    dataset = describe(
        folder,
        '<m:ANNOTATION_SET xmlns:m="urn:bp"><m:ANNOTATION><m:IMAGE_REF alias="I"/><m:FILES>'
        '<m:FILE filename="ANNOTATIONS/1.geojson" filetype="geojson"/><m:FILE filename="ANNOTATIONS/2.xml"/>'
        '<m:FILE filename="ANNOTATIONS/2.GeoJSON"/></m:FILES></m:ANNOTATION>'
        '<ANNOTATION xmlns="urn:other"><IMAGE_REF alias="J"/><FILE filename="ANNOTATIONS/3.geojson"/></ANNOTATION>'
        "</m:ANNOTATION_SET>",
    )
    assert matched(dataset) == {"a.png": ["1.geojson", "2.GeoJSON"], "b.png": ["3.geojson"]}
    assert dataset.notes == ["ANNOTATIONS/2.xml, for only GeoJSON is read"]
    (fault,) = dataset.faults
    assert "names no image for ANNOTATIONS/b.geojson" in fault


def test_one_annotation_of_several_images_is_told_apart_by_its_files_names(tmp_path: Path) -> None:
    folder = lay(
        tmp_path, "IMAGES/I/a.png", "IMAGES/J/b.png", "ANNOTATIONS/a.geojson", "ANNOTATIONS/c.geojson"
    )
    files = "".join(f'<FILE filename="ANNOTATIONS/{n}.geojson"/>' for n in "ac")
    dataset = describe(
        folder, f'<S><ANNOTATION><IMAGE_REF alias="I"/><IMAGE_REF alias="J"/>{files}</ANNOTATION></S>'
    )
    assert matched(dataset) == {"a.png": ["a.geojson"]}
    assert "ANNOTATIONS/c.geojson of" in dataset.faults[0]


def test_a_dataset_s_own_metadata_may_have_a_namespace(tmp_path: Path) -> None:
    folder = lay(tmp_path, "IMAGES/I/a.png", "METADATA/dataset.xml")
    text = '<S xmlns="urn:x"><DATASET alias="n"><DESCRIPTION>d</DESCRIPTION><TITLE>t</TITLE></DATASET></S>'
    (folder / "METADATA/dataset.xml").write_text(text)
    found = dataset_files.read(folder)
    assert (found.name, found.description) == ("n", "d")
