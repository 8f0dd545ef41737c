"""What the params of several actions have in common."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

Path = Annotated[str, Meta(min_length=2, max_length=4095, pattern=r"^/[^\x00]+$")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,30}$")]  # what QEMU takes as a node name
Format = Literal["qcow2", "raw"]


class RunParams(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Members that every action has."""

    paths: ClassVar[tuple[str, ...]] = ()  # the members that name files

    speed: Annotated[int, Meta(ge=0, le=2**62, description="at most so many bytes a second; 0 = as fast as it goes")] = 0


class SourceParams(RunParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where data is read from: a file at rest, or a node that the storage has open."""

    paths: ClassVar[tuple[str, ...]] = ("source",)

    source: Annotated[Path | None, Meta(description="image file at rest, read with its backing chain; or give `node`")] = None
    source_format: Annotated[Format, Meta(description="format of `source`")] = "qcow2"
    node: Annotated[Name | None, Meta(description="node name of an image that the storage has open (a live volume)")] = None
    size: Annotated[
        Annotated[int, Meta(ge=1, le=2**62)] | None,
        Meta(description="virtual size of `node` in bytes; absent: the storage is asked, which it cannot stand at all times"),
    ] = None

    def __post_init__(self) -> None:
        if (self.source is None) == (self.node is None):
            raise ValueError("exactly one of `source` (a file) and `node` (a node name) must be given")
        if self.size is not None and self.node is None:
            raise ValueError("`size` belongs to `node`; that of a file is known")


class CopyParams(SourceParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From a source into a new image."""

    paths: ClassVar[tuple[str, ...]] = ("source", "target")

    target: Annotated[Path, Meta(description="image file to make; must not exist")]
    format: Annotated[Format, Meta(description="format of `target`")] = "qcow2"
