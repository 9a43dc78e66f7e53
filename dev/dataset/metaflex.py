"""Mock dataset: its description in the form of Bigpicture's metadata standard MetaFleX 2.0."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

STANDARD = "2.0.0"


@dataclass(frozen=True)
class Picture:
    """An image of the dataset: its alias, what it shows, its files and its annotation files."""

    alias: str
    slide: str
    files: list[Path]
    annotations: list[Path] = field(default_factory=list)


def _attributes(parent: ET.Element, **texts: str) -> ET.Element:
    holder = ET.SubElement(parent, "ATTRIBUTES")
    for tag, value in texts.items():
        item = ET.SubElement(holder, "STRING_ATTRIBUTE")
        ET.SubElement(item, "TAG").text = tag
        ET.SubElement(item, "VALUE").text = value
    if not texts:
        holder.set("{http://www.w3.org/2001/XMLSchema-instance}nil", "true")
    return holder


def _files(parent: ET.Element, paths: list[Path], root: Path, kind: str = "") -> None:
    holder = ET.SubElement(parent, "FILES")
    for path in paths:
        ET.SubElement(
            holder,
            "FILE",
            filename=path.relative_to(root).as_posix(),
            filetype=kind or path.name.partition(".")[2],
            checksum_method="SHA256",
            checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
        )


def _stain(parent: ET.Element, alias: str, *substances: str) -> None:
    staining = ET.SubElement(parent, "STAINING", alias=alias)
    for substance in substances:
        item = ET.SubElement(ET.SubElement(staining, "STAIN"), "STRING_ATTRIBUTE")
        ET.SubElement(item, "TAG").text = "STAINING_COMPOUND"
        ET.SubElement(item, "VALUE").text = substance
    _attributes(staining)


def write(root: Path, alias: str, title: str, about: str, pictures: list[Picture]) -> None:
    """Write ``METADATA/*.xml`` of one dataset.

    Args:
        root: the folder ``DATASET_<alias>``, its images and annotations in it.
        alias: the dataset's short name; a project gets it as its name.
        title: its title.
        about: what is in it, in a sentence or two.
        pictures: its images.
    """
    sets = {
        name: ET.Element(name.upper() + "_SET")
        for name in ("dataset", "policy", "image", "annotation", "observation", "sample", "staining")
    }
    dataset = ET.SubElement(sets["dataset"], "DATASET", alias=alias)
    for tag, text in (("TITLE", title), ("SHORT_NAME", alias), ("DESCRIPTION", about), ("VERSION", "1")):
        ET.SubElement(dataset, tag).text = text
    ET.SubElement(dataset, "METADATA_STANDARD").text = STANDARD
    ET.SubElement(dataset, "DATASET_TYPE").text = "Whole slide imaging"
    for picture in pictures:
        ET.SubElement(dataset, "IMAGE_REF", alias=picture.alias)
    for picture in pictures:
        for path in picture.annotations:
            ET.SubElement(dataset, "ANNOTATION_REF", alias=path.stem)
    ET.SubElement(dataset, "OBSERVATION_REF", alias="observation-1")
    _attributes(dataset, license="CC0-1.0")
    policy = ET.SubElement(sets["policy"], "POLICY", alias="policy-1")
    ET.SubElement(policy, "DATASET_REF", alias=alias)
    _attributes(policy, type_of_dataset="Non-sensitive / mock")
    _samples(sets["sample"], {p.slide for p in pictures})
    _stain(sets["staining"], "staining-he", "haematoxylin", "eosin")
    _stain(sets["staining"], "staining-synthetic", "none: synthetic image")
    for picture in pictures:
        image = ET.SubElement(sets["image"], "IMAGE", alias=picture.alias)
        ET.SubElement(image, "IMAGE_OF", alias=picture.slide)
        ET.SubElement(ET.SubElement(image, "IMAGE_TYPE"), "WSI_IMAGE")
        _files(image, picture.files, root)
        _attributes(image)
        for path in picture.annotations:
            annotation = ET.SubElement(sets["annotation"], "ANNOTATION", alias=path.stem)
            ET.SubElement(annotation, "IMAGE_REF", alias=picture.alias)
            _files(annotation, [path], root, "json")
            _attributes(annotation)
    _observation(sets["observation"], pictures[0].slide)
    folder = root / "METADATA"
    folder.mkdir(parents=True)
    ET.register_namespace("xsi", "http://www.w3.org/2001/XMLSchema-instance")
    for name, tree in sets.items():
        ET.indent(tree)
        ET.ElementTree(tree).write(folder / f"{name}.xml", encoding="utf-8", xml_declaration=True)


def _samples(parent: ET.Element, slides: set[str]) -> None:
    being = ET.SubElement(parent, "BIOLOGICAL_BEING", alias="being-1")
    _attributes(being, animal_species="unknown")
    specimen = ET.SubElement(parent, "SPECIMEN", alias="specimen-1")
    ET.SubElement(specimen, "EXTRACTED_FROM_REF", alias="being-1")
    _attributes(specimen, anatomical_site="unknown; looks like skin")
    block = ET.SubElement(parent, "BLOCK", alias="block-1")
    ET.SubElement(block, "SAMPLED_FROM_REF", alias="specimen-1")
    _attributes(block)
    for alias in sorted(slides):
        slide = ET.SubElement(parent, "SLIDE", alias=alias)
        ET.SubElement(slide, "CREATED_FROM_REF", alias="block-1")
        stain = "staining-synthetic" if "synthetic" in alias else "staining-he"
        ET.SubElement(slide, "STAINING_INFORMATION_REF", alias=stain)
        _attributes(slide)


def _observation(parent: ET.Element, slide: str) -> None:
    nil = {"{http://www.w3.org/2001/XMLSchema-instance}nil": "true"}
    observation = ET.SubElement(parent, "OBSERVATION", alias="observation-1")
    ET.SubElement(observation, "SLIDE_REF", alias=slide)
    statement = ET.SubElement(observation, "STATEMENT")
    ET.SubElement(statement, "STATEMENT_TYPE").text = "Microscopic Description"
    ET.SubElement(statement, "STATEMENT_STATUS").text = "Summary"
    for tag in ("CODE_ATTRIBUTES", "CUSTOM_ATTRIBUTES"):
        ET.SubElement(statement, tag, nil)
    ET.SubElement(statement, "FREETEXT").text = "Mock dataset, no diagnosis was made."
    ET.SubElement(statement, "ATTRIBUTES", nil)
    _attributes(observation)
