"""The published figures, from this package's own copy or from a file of the same form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PUBLISHED = Path(__file__).with_name('tables.yaml')


@dataclass(frozen=True)
class Figure:
    """One published number.

    Args:
        value (str): As printed in the table, so that the printed digits are known.
        confirmed (bool): Whether it was read in ``source``. Others are recalled: show them with a
            mark, compare nothing with them.
        source (str): Key of the publication.
        note (str): What to know about it. Defaults to ``''``.
    """

    value: str
    confirmed: bool
    source: str
    note: str = ''


def load_published(path: str | Path = PUBLISHED) -> dict[str, dict[str, dict[str, Figure]]]:
    """Read the published tables.

    Args:
        path (str or Path): A YAML file of the form of ``tables.yaml``. Defaults to that file.

    Returns:
        dict: Figures by table, row and column; unknown values are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a row has not one value per column, or an unknown status.
    """
    import yaml  # comes with the frameworks; nothing else in this package needs it

    # BaseLoader keeps every scalar as text: 12.60 is known to two digits, 12.6 to one.
    with open(path, encoding='utf-8') as file:
        document = yaml.load(file, Loader=yaml.BaseLoader)
    return {
        name: {row: _read_row(name, row, table, entry) for row, entry in table['rows'].items()}
        for name, table in document.items()
        if 'rows' in table
    }


def _read_row(name: str, row: str, table: dict, entry: dict | str) -> dict[str, Figure]:
    if isinstance(entry, str):
        entry = dict(values=[entry])
    columns = table.get('columns', ['value'])
    status = entry.get('status', table.get('status'))
    if status not in ('confirmed', 'recalled'):
        raise ValueError(f'{name}/{row}: status must be confirmed or recalled, got {status!r}')
    if len(entry['values']) != len(columns):
        raise ValueError(f'{name}/{row}: {len(entry["values"])} values for columns {columns}')
    return {
        column: Figure(
            value,
            confirmed=status == 'confirmed' and column not in entry.get('recalled', []),
            source=entry.get('source', table.get('source')),
            note=entry.get('note', ''),
        )
        for column, value in zip(columns, entry['values'], strict=True)
        if value != 'null'
    }
