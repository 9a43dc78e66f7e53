"""Makes small container images from files: reproducible OCI archives, without any base."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_EPOCH = "1970-01-01T00:00:00Z"
_TYPE = "application/vnd.oci.image"


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _layer(files: Mapping[str, Path], folders: Sequence[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        parents = {str(p) for name in files for p in Path(name.lstrip("/")).parents} - {"."}
        for folder in sorted(parents):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for folder in sorted(folders):
            info = tarfile.TarInfo(folder.lstrip("/"))
            info.type, info.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(info)
        for name in sorted(files):
            _add(tar, name.lstrip("/"), files[name].read_bytes(), 0o755)
    return out.getvalue()


def write(
    out: Path,
    repository: str,
    files: Mapping[str, Path],
    entrypoint: Sequence[str],
    *,
    user: str = "65532",
    folders: Sequence[str] = (),
    architecture: str = "amd64",
) -> str:
    """Write an OCI archive whose only content is some (static) programs.

    Args:
        out: the archive to write.
        repository: the image's name without its tag.
        files: paths in the image and the files that they are copied from; all get mode 0755.
        entrypoint: the command.
        user: uid that it runs with.
        folders: further folders, writable for all.
        architecture: Go's name of the processor.

    Returns:
        The full name; its tag is the content's hash, so equal files give an equal name.
    """
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return f"sha256:{digest}", len(data)

    def put_json(value: object) -> tuple[str, int]:
        return put(json.dumps(value, sort_keys=True).encode())

    layer, layer_size = put(_layer(files, folders))
    config, config_size = put_json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": _EPOCH,
            "config": {"Entrypoint": list(entrypoint), "User": user, "WorkingDir": "/", "Env": ["PATH=/"]},
            # one entry a layer, or buildah refuses to build upon it
            "history": [{"created": _EPOCH, "created_by": "mkimage"}],
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        }
    )
    manifest, manifest_size = put_json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": {"mediaType": f"{_TYPE}.config.v1+json", "digest": config, "size": config_size},
            "layers": [{"mediaType": f"{_TYPE}.layer.v1.tar", "digest": layer, "size": layer_size}],
        }
    )
    name = f"{repository}:{manifest.removeprefix('sha256:')[:12]}"
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": f"{_TYPE}.manifest.v1+json",
                "digest": manifest,
                "size": manifest_size,
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
            }
        ],
    }
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", json.dumps(index, sort_keys=True).encode())
        for digest in sorted(blobs):
            _add(tar, f"blobs/sha256/{digest}", blobs[digest])
    return name
