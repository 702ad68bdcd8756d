"""Folders of images: a class a sub-folder, or a table of labels beside the files; and what else lies in there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainwatch.auditing.samples import Problem, Samples, Split
from trainwatch.auditing.sources.assembling import assemble
from trainwatch.auditing.sources.pixels import Header, header_of, pixels_of, shape_for
from trainwatch.auditing.sources.reading import AuditError, Reading, in_part, named, spread
from trainwatch.auditing.sources.tables import CSV, is_table, rows_of
from trainwatch.auditing.sources.targets import NAMES

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
TRAIN, VAL = ("train", "training"), ("val", "valid", "validation", "test")
TABLES = ("labels", "annotations", "metadata")  # names of tables that label files
ORPHANS = 20  # that are named


def parts_in(folder: Path) -> tuple[Path, Path | None]:
    """The parts that lie side by side in a folder, as sub-folders or tables; else the folder itself."""
    held = {(p.name if p.is_dir() else p.name.split(".")[0]).lower(): p for p in sorted(folder.iterdir())}
    held = {name: p for name, p in held.items() if p.is_dir() or is_table(p)}
    train, val = (next((held[n] for n in names if n in held), None) for names in (TRAIN, VAL))
    return (train, val) if train is not None else (folder, None)


def read_folder(folder: Path, split: Split, reading: Reading) -> Samples:
    """The images of a folder and their classes.

    Raises:
        AuditError: It holds no image that can be read, or its labels cannot be used.
    """
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not _is_hidden(p.relative_to(folder))]
    images = [p for p in files if p.suffix.lower() in IMAGES]
    if not images:
        raise AuditError(f"{folder} holds no images ({', '.join(IMAGES)}): {_kinds(files) or 'it is empty'}")
    problems: list[Problem] = []
    labels, notes, inventory = _labels(folder, images, files, reading)
    chosen = spread(len(images), reading.limit).tolist()
    headers: dict[int, Header] = {}
    for place in reading.track(chosen, f"looking into {split}", len(chosen)):
        headers |= _tried(lambda p=place: {p: header_of(images[p])}, images[place], folder, problems)
    if not headers:
        raise AuditError(f"none of the {len(chosen):,} images in {folder} can be read: {problems[0].what}")
    mode, size = reading.picture = reading.picture or shape_for(headers.values())
    room = reading.room(size[0] * size[1] * 4)
    wanted = list(headers)
    wanted = [wanted[i] for i in spread(len(wanted), room)]
    pixels: dict[int, Any] = {}
    for place in reading.track(wanted, f"reading {split}", len(wanted)):
        pixels |= _tried(lambda p=place: {p: pixels_of(images[p], mode, size)}, images[place], folder, problems)
    if not pixels:
        raise AuditError(f"none of the {len(wanted):,} images in {folder} can be read: {problems[0].what}")
    if len(chosen) < len(images) or len(wanted) < len(headers):
        notes += in_part(len(wanted), len(images), "images")
    sizes = Counter(h.size for h in headers.values())
    if set(sizes) != {size}:
        notes += (f"sizes differ or are large ({len(sizes):,} of them): all were made {size[0]} x {size[1]} pixels",)
    if others := [p for p in files if p.suffix.lower() not in IMAGES]:
        notes += (f"beside images there are {_kinds(others)}",)
    inventory |= {
        "kinds": dict(sorted(Counter(map(_kind, files)).items())),
        "sizes": {f"{w} x {h}": count for (w, h), count in sizes.most_common(5)},
        "modes": dict(Counter(h.mode for h in headers.values()).most_common()),
        "unreadable": len(problems),
    }
    places = np.array(list(pixels), np.int64)
    return assemble(
        np.stack(list(pixels.values())),
        np.array([labels.get(images[p], "") for p in pixels]) if labels else None,
        places,
        len(images),
        split=split,
        source=folder.name,
        reading=reading,
        files=tuple(images[p].relative_to(folder).as_posix() for p in pixels),
        inventory=inventory,
        problems=problems,
        notes=notes,
    )


def _tried(read: Any, path: Path, folder: Path, problems: list[Problem]) -> dict[int, Any]:
    try:
        return dict(read())
    except Exception as error:  # broken files raise whatever their decoder stumbles over
        what = str(error).split(str(folder))[0].rstrip(" '\"")
        problems.append(Problem(path.relative_to(folder).as_posix(), f"cannot be read: {type(error).__name__}: {what}"))
        return {}


def _labels(
    folder: Path, images: list[Path], files: list[Path], reading: Reading
) -> tuple[dict[Path, str], tuple[str, ...], dict[str, Any]]:
    """Class of each image, how it was told, and what does not fit together."""
    table = next(
        (p for p in files if p.parent == folder and p.name.split(".")[0].lower() in TABLES and is_table(p)), None
    )
    if table is not None and table.name.lower().endswith(CSV):
        rows = dict(_rows(table, reading))
        by_name = {p.relative_to(folder).as_posix(): p for p in images} | {p.name: p for p in reversed(images)}
        found = {by_name[name]: label for name, label in rows.items() if name in by_name}
        lost = [name for name in rows if name not in by_name]
        bare = [p.relative_to(folder).as_posix() for p in images if p not in found]
        orphans = {"labels_without_file": lost[:ORPHANS], "files_without_label": bare[:ORPHANS]}
        counts = {"labels without a file": len(lost), "files without a label": len(bare)}
        notes = tuple(f"{n:,} {what} in {table.name}" for what, n in counts.items() if n)
        if not found:
            raise AuditError(f"{table} names none of the {len(images):,} images beside it, but {named(lost, 3)}")
        return found, (f"classes are those of {table.name}", *notes), {k: v for k, v in orphans.items() if v}
    classes = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    of = {p: p.relative_to(folder).parts[0] for p in images if p.parent != folder}
    known = reading.words_of("the targets").known  # by which a lone sub-folder of validation is a class as well
    if not of or (len(classes) < 2 and not any(p.name in known for p in classes)):
        return {}, ("there are no sub-folders that could be classes, and no labels.csv",), {}
    empty = [p.name for p in classes if p.name not in set(of.values())]
    loose = [p.name for p in images if p.parent == folder]
    notes = (f"empty classes: {named(empty)}",) * bool(empty)
    notes += (f"{len(loose):,} images lie beside the sub-folders and have no class",) * bool(loose)
    told = {"empty_classes": empty, "files_without_label": loose[:ORPHANS]}
    return of, ("a class is a sub-folder", *notes), {k: v for k, v in told.items() if v}


def _rows(table: Path, reading: Reading) -> Iterator[tuple[str, str]]:
    """File and label of each row of a table."""
    with rows_of(table) as read:
        rows = [row for row in read if row]
    names = rows[0] if rows else []
    file = next((i for i in range(len(names)) if any(_names_image(r[i]) for r in rows[1:] if i < len(r))), None)
    likely = [i for i, n in enumerate(names) if n == reading.target or (not reading.target and n.lower() in NAMES)]
    if file is None or not likely:
        what = "file names of images" if file is None else f"labels ({', '.join(NAMES)}, or target=)"
        raise AuditError(f"{table} has no column with {what}; it has {named(names)}")
    for row in rows[1:]:
        if len(row) > max(file, likely[0]):
            yield row[file].strip().removeprefix("./"), row[likely[0]].strip()


def _names_image(cell: str) -> bool:
    return cell.strip().lower().endswith(IMAGES)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _kind(path: Path) -> str:
    return path.suffix.lower() or "no suffix"


def _kinds(files: list[Path]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in Counter(map(_kind, files)).most_common(5))
