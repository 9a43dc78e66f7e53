"""A DICOM slide without compression, so that its pixels are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def write(path: Path, pixels: np.ndarray, scale: float, uids: dict[str, str], tile: int = 64) -> None:
    """One level of a slide.

    Args:
        path: the file.
        pixels: the whole level.
        scale: px of the full size per px; those are 0.25 microns.
        uids: what the files of a slide share: study, series, frame.
        tile: side of the tiles.
    """
    height, width = pixels.shape[:2]
    down, across = -(-height // tile), -(-width // tile)
    padded = np.pad(pixels, ((0, down * tile - height), (0, across * tile - width), (0, 0)))
    frames = padded.reshape(down, tile, across, tile, 3).swapaxes(1, 2).tobytes()
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SLIDE
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.StudyInstanceUID, made.SeriesInstanceUID = uids["study"], uids["series"]
    made.FrameOfReferenceUID = uids["frame"]
    made.Modality, made.Manufacturer, made.PatientID, made.PatientName = "SM", "test", "1", "a^b"
    made.StudyDate = made.ContentDate = "20260101"
    made.StudyTime = made.ContentTime = "000000"
    made.AcquisitionDateTime = "20260101000000"
    made.SeriesNumber = made.InstanceNumber = 1
    made.ContainerIdentifier = "slide"
    made.ImageType = (
        ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        if scale == 1
        else ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    )
    made.VolumetricProperties, made.FocusMethod, made.ExtendedDepthOfField = "VOLUME", "AUTO", "NO"
    made.SpecimenLabelInImage = made.BurnedInAnnotation = "NO"
    made.LossyImageCompression, made.PositionReferenceIndicator = "00", "SLIDE_CORNER"
    made.Rows = made.Columns = tile
    made.TotalPixelMatrixRows, made.TotalPixelMatrixColumns = height, width
    made.TotalPixelMatrixFocalPlanes = made.NumberOfOpticalPaths = 1
    made.NumberOfFrames = down * across
    made.DimensionOrganizationType = "TILED_FULL"
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    spacing = Dataset()
    spacing.PixelSpacing, spacing.SliceThickness = [0.00025 * scale] * 2, 0.001
    made.ImagedVolumeWidth, made.ImagedVolumeHeight, made.ImagedVolumeDepth = (
        width * 0.00025 * scale,
        height * 0.00025 * scale,
        0.001,
    )
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([spacing])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
    made.TotalPixelMatrixOriginSequence = Sequence([origin])
    made.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    light = Dataset()
    light.OpticalPathIdentifier = "0"
    made.OpticalPathSequence = Sequence([light])
    made.PixelData = frames if len(frames) % 2 == 0 else frames + b"\0"
    made["PixelData"].VR = "OB"
    made.save_as(path, enforce_file_format=True)


def write_pyramid(folder: Path, levels: dict[int, np.ndarray]) -> None:
    """A slide of several files.

    Args:
        folder: where they go.
        levels: pixels by their scale.
    """
    uids = {name: generate_uid() for name in ("study", "series", "frame")}
    folder.mkdir(parents=True, exist_ok=True)
    for scale, pixels in levels.items():
        write(folder / f"level-{scale}.dcm", pixels, scale, uids)
