"""Where a seat may lie: on a local disk, whose locks and links do what they say."""

import sys
from pathlib import Path

from protocols.errors import NotStored

# Locks and links on these are not those of one machine, or come late.
_NETWORKS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "gpfs",
    "fuse.sshfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.gcsfuse",
    "fuse.davfs",
    "davfs",
    "vboxsf",
    "prl_fs",
)


def check_local(folder: Path, mounts: str | None = None) -> None:
    """Raise NotStored for a folder on a network's file system, where Linux tells.

    Args:
        folder: an existing folder.
        mounts: the text of `/proc/self/mountinfo`; by default this process's.
    """
    if mounts is None:
        source = Path("/proc/self/mountinfo")
        if not sys.platform.startswith("linux") or not source.exists():
            return
        mounts = source.read_text(encoding="utf-8", errors="surrogateescape")
    kind = _kind_of(folder.resolve(), mounts)
    if kind in _NETWORKS:
        raise NotStored(
            f"{folder} lies on a network's file system ({kind}), where two machines could take one "
            "seat",
            fix="keep state on a local disk; a post may lie on a network",
        )


def _kind_of(folder: Path, mounts: str) -> str:
    """Return the type of the file system of the mount that is nearest above a folder."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))
        depth = len(point.parts)
        if depth >= best and (folder == point or point in folder.parents):
            best, kind = depth, after.split(" ")[0]
    return kind
