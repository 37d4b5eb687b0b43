"""Writing of the report: gather, draw, and write four files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mmdysample.engine.files import write_whole
from mmdysample.reproduce.report.gather import gather
from mmdysample.reproduce.report.page import to_html
from mmdysample.reproduce.report.strips import draw_strips
from mmdysample.reproduce.report.text import to_csv, to_markdown
from mmdysample.reproduce.tables import Table

PICTURES = 'pictures'


def write_report(work_dir: Path, tables: Sequence[Table], out: Path, *, pictures: int = 3) -> Path:
    """Write ``report.html``, ``report.md``, ``report.csv`` and ``report.json``.

    Runs that are not finished, failed, or have a damaged result are shown as that. The page
    needs no other file. The pictures, below ``out/pictures``, are drawn again only if a
    checkpoint that they are made with is another.

    Args:
        work_dir (Path): Work dir of the runs.
        tables (Sequence[Table]): What to report, in this order.
        out (Path): Folder to write to; it is made if need be.
        pictures (int): Validation images to show for each table. Defaults to 3.

    Returns:
        Path: The page.

    Raises:
        UnwritableFileError: If a file can't be written. Each is the old or the new one, whole.
    """
    work_dir, out = Path(work_dir), Path(out)
    report = gather(work_dir, tables)
    for table, entry in zip(tables, report['tables'], strict=True):
        entry['pictures'], entry['pictures_note'] = draw_strips(
            work_dir, table, out / PICTURES, pictures
        )
    page = out / 'report.html'
    files = {
        'report.json': json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + '\n',
        'report.csv': to_csv(report),
        'report.md': to_markdown(report),
        page.name: to_html(report, out / PICTURES),
    }
    for name, text in files.items():
        write_whole(out / name, text.encode())
    return page
