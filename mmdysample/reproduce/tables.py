"""The published tables: what was printed, and how each row is run; read from one data file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mmdysample.engine.errors import UsageError

PUBLISHED = Path(__file__).with_name('tables.yaml')
SCALES = ('full', 'small', 'demo')
"""``full`` is the comparison as published. The others are keys of an entry that holds the same
comparison made smaller: ``small`` on real photographs with pretrained backbones, ``demo`` on
rendered scenes."""


@dataclass(frozen=True)
class Published:
    """One published number, as printed, so that the printed digits are known.

    A confirmed one was read in its source. Others are recalled: show them with a mark, compare
    nothing with them.
    """

    value: str
    confirmed: bool
    source: str
    note: str = ''


@dataclass(frozen=True)
class Metric:
    """How a column is read from the result of a test, and shown."""

    key: str  # its name in the test's result
    times: float = 1  # what turns it into the column's unit
    digits: int = 1  # decimals to show
    lower: bool = False  # whether less is better


@dataclass(frozen=True)
class Row:
    """One row of a table: an upsampler, or an upsampler on another backbone.

    The config is a file below the root of the project. Published numbers are by column.
    """

    name: str
    config: str
    published: dict[str, Published]


@dataclass(frozen=True)
class Table:
    """One published table at one scale."""

    name: str  # for the command line and folders
    title: str  # for reports
    task: str  # segmentation, detection, instance, panoptic or depth
    scale: str  # one of SCALES
    metrics: dict[str, Metric]  # measured columns, the leading one first
    columns: list[str]  # all published columns
    rows: dict[str, Row]  # by name; the first is the baseline
    batch: int | None = None  # images of an update, over all GPUs, that the schedule is made for
    train: dict[str, float] = field(default_factory=dict)  # images, gmacs and params_m, if known
    test_options: list[str] = field(default_factory=list)  # of tools/test.py
    start: str | None = None  # config of the network that all rows begin from; None: none does

    @property
    def baseline(self) -> Row:
        """The row that the others are compared with."""
        return next(iter(self.rows.values()))

    @property
    def leading(self) -> str:
        """The metric that the comparison is about."""
        return next(iter(self.metrics))

    def compared_with(self, row: Row) -> Row | None:
        """Give the first row on a row's own backbone; None for that row itself."""

        def backbone(candidate: Row) -> str:
            published = candidate.published.get('backbone', self.baseline.published.get('backbone'))
            return published.value if published else ''

        first = next(peer for peer in self.rows.values() if backbone(peer) == backbone(row))
        return None if first is row else first

    def runnable(self, names: Sequence[str] | None = None) -> list[Row]:
        """Choose rows by name; all of them where no name is given.

        Raises:
            UsageError: If there is no row of a name.
        """
        unknown = [name for name in names or () if name not in self.rows]
        if unknown:
            raise UsageError(
                f'{self.name} has no row {", ".join(unknown)} to run; it has {", ".join(self.rows)}'
            )
        return [row for name, row in self.rows.items() if not names or name in names]


def load_published(path: str | Path = PUBLISHED) -> dict[str, dict[str, dict[str, Published]]]:
    """Read the published numbers of a file of the form of ``tables.yaml``.

    They are by table, row and column. Unknown ones are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a row has not one value per column, or an unknown status.
    """
    return {
        name: _published_rows(name, entry)
        for name, entry in _document(Path(path)).items()
        if 'rows' in entry
    }


def load_sources() -> dict[str, dict[str, str]]:
    """Read where the published numbers were found: ``url`` and ``what`` by key."""
    return _document(PUBLISHED)['sources']


def column_label(column: str) -> tuple[str, str]:
    """Name a column for readers, and its unit; the unit is empty if it has none."""
    label, unit = _document(PUBLISHED)['labels'].get(column, (column.replace('_', ' '), ''))
    return label, unit


def load_tables(scale: str = 'full') -> dict[str, Table]:
    """Read all tables that a scale has, by short name, in the order of the file.

    Raises:
        ValueError: If ``scale`` is unknown.
    """
    if scale not in SCALES:
        raise ValueError(f'scale must be one of {SCALES}, got {scale!r}')
    key = 'rows' if scale == 'full' else scale
    return {
        entry['name']: _read_table(name, entry, scale)
        for name, entry in _document(PUBLISHED).items()
        if 'metrics' in entry and key in entry
    }


def find_tables(names: Sequence[str], scale: str) -> list[Table]:
    """Choose tables by name; all of the scale where no name is given.

    Raises:
        UsageError: If there is no table of a name at that scale.
    """
    tables = load_tables(scale)
    unknown = [name for name in names if name not in tables]
    if unknown:
        raise UsageError(
            f'no table {", ".join(unknown)} at scale {scale}; there are {", ".join(tables)}'
        )
    return [table for name, table in tables.items() if not names or name in names]


@cache
def _document(path: Path) -> dict[str, Any]:
    """Read a data file with every scalar as text: 12.60 is known to two digits, 12.6 to one."""
    import yaml  # comes with the frameworks

    return yaml.load(path.read_text(encoding='utf-8'), Loader=yaml.BaseLoader)


def _read_table(key: str, entry: dict[str, Any], scale: str) -> Table:
    published = _published_rows(key, entry)
    own = entry if scale == 'full' else entry[scale]
    rows = {}
    for name in [*own['rows'], *own.get('more', [])]:
        config = own.get('config')
        if isinstance(own['rows'], dict) and isinstance(own['rows'].get(name), dict):
            config = own['rows'][name].get('config', config)
        config = config.format(row=name.replace('_', '-'))
        rows[name] = Row(name, config, published.get(name, {}))
    train = dict(own.get('train', {}))
    return Table(
        name=entry['name'],
        title=own['title'],
        task=entry['task'],
        scale=scale,
        metrics={n: _metric(**m) for n, m in own.get('metrics', entry['metrics']).items()},
        columns=entry['columns'],
        rows=rows,
        batch=int(own['batch']) if 'batch' in own else None,
        test_options=train.pop('test', []),
        start=own.get('start'),
        train={name: float(value) for name, value in train.items()},
    )


def _metric(key: str, times: str = '1', digits: str = '1', lower: str = 'false') -> Metric:
    return Metric(key, float(times), int(digits), lower == 'true')


def _published_rows(table: str, entry: dict[str, Any]) -> dict[str, dict[str, Published]]:
    columns = entry.get('columns', ['value'])
    return {
        name: _published_row(f'{table}/{name}', columns, entry, row)
        for name, row in entry.get('rows', {}).items()
    }


def _published_row(
    name: str, columns: list[str], table: dict[str, Any], row: dict[str, Any] | str
) -> dict[str, Published]:
    if isinstance(row, str):
        row = dict(values=[row])
    status = row.get('status', table.get('status'))
    if status not in ('confirmed', 'recalled'):
        raise ValueError(f'{name}: status must be confirmed or recalled, got {status!r}')
    if len(row['values']) != len(columns):
        raise ValueError(f'{name}: {len(row["values"])} values for columns {columns}')
    return {
        column: Published(
            value,
            confirmed=status == 'confirmed' and column not in row.get('recalled', []),
            source=row.get('source', table.get('source')),
            note=row.get('note', ''),
        )
        for column, value in zip(columns, row['values'], strict=True)
        if value != 'null'
    }
