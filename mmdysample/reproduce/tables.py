"""The tables that can be reproduced, read from the one data file that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.published import PUBLISHED, Figure, load_published

SCALES = ('full', 'demo')
"""``full`` is the published setting; ``demo`` the same comparison on the synthetic default."""


@dataclass(frozen=True)
class Metric:
    """How a column is read from the result of a test, and shown.

    Args:
        key (str): Name in the test's result.
        times (float): What turns it into the column's unit. Defaults to 1.
        digits (int): Decimals to show. Defaults to 1.
        lower (bool): Whether less is better. Defaults to False.
    """

    key: str
    times: float = 1
    digits: int = 1
    lower: bool = False


@dataclass(frozen=True)
class Row:
    """One row of a table: an upsampler, or an upsampler on another backbone.

    Args:
        name (str): Name in the table.
        config (str, optional): Config file, from the root of the project; None if this package
            has no implementation, so that the row is only shown.
        published (dict[str, Figure]): Published figures by column; unknown ones are left out.
    """

    name: str
    config: str | None
    published: dict[str, Figure]


@dataclass(frozen=True)
class Table:
    """One published table at one scale.

    Args:
        name (str): Short name, for the command line and folders.
        title (str): For reports.
        task (str): 'segmentation', 'detection', 'instance', 'panoptic' or 'depth'.
        scale (str): One of :data:`SCALES`.
        metrics (dict[str, Metric]): Measured columns, the leading one first.
        columns (list[str]): All published columns.
        rows (dict[str, Row]): Rows by name; the first is the baseline.
        train (dict[str, float]): ``images`` that one training sees, ``gmacs`` per image and
            ``params_m`` of the baseline; empty at demo scale.
        test_options (list[str]): Options of ``tools/test.py`` that the numbers need.
    """

    name: str
    title: str
    task: str
    scale: str
    metrics: dict[str, Metric]
    columns: list[str]
    rows: dict[str, Row]
    train: dict[str, float]
    test_options: list[str]

    @property
    def baseline(self) -> Row:
        """The row that the others are compared with."""
        return next(iter(self.rows.values()))

    def compared_with(self, row: Row) -> Row | None:
        """Say which row a row is compared with: the first, or the first on its own backbone.

        Returns:
            Row: That row; None for a row that others are compared with.
        """

        def backbone(candidate: Row) -> str:
            published = candidate.published.get('backbone', self.baseline.published.get('backbone'))
            return published.value if published else ''

        first = next(peer for peer in self.rows.values() if backbone(peer) == backbone(row))
        return None if first is row else first

    def runnable(self, names: Sequence[str] | None = None) -> list[Row]:
        """Choose rows that have a config.

        Args:
            names (Sequence[str], optional): Names of rows. Defaults to None, all that can run.

        Raises:
            UsageError: If a name is no row, or a row without a config.
        """
        can_run = {name: row for name, row in self.rows.items() if row.config}
        unknown = [name for name in names or () if name not in can_run]
        if unknown:
            raise UsageError(
                f'{self.name} has no row {", ".join(unknown)} to run; it has {", ".join(can_run)}'
            )
        return [row for name, row in can_run.items() if not names or name in names]


def load_tables(scale: str = 'full', path: str | Path = PUBLISHED) -> dict[str, Table]:
    """Read all tables of a scale.

    Args:
        scale (str): One of :data:`SCALES`. Tables without a demo are absent from that scale.
            Defaults to 'full'.
        path (str or Path): The data file. Defaults to the package's own.

    Returns:
        dict[str, Table]: By short name, in the order of the file.

    Raises:
        ValueError: If ``scale`` is unknown.
    """
    import yaml  # comes with the frameworks

    if scale not in SCALES:
        raise ValueError(f'scale must be one of {SCALES}, got {scale!r}')
    published = load_published(path)
    document = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    tables = {}
    for key, entry in document.items():
        if 'metrics' in entry and (scale == 'full' or 'demo' in entry):
            tables[entry['name']] = _read_table(entry, published[key], scale)
    return tables


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


def _read_table(entry: dict, published: dict[str, dict[str, Figure]], scale: str) -> Table:
    if scale == 'demo':
        pattern, names = entry['demo']['config'], entry['demo']['rows']
        overrides: dict[str, dict] = {}
    else:
        pattern, names = entry.get('config'), [*entry['rows'], *entry.get('more', [])]
        overrides = entry['rows']
    rows = {}
    for name in names:
        config = overrides.get(name, {}).get('config', pattern)
        if config:
            config = config.format(row=name.replace('_', '-'))
        rows[name] = Row(name, config, published.get(name, {}))
    train = dict(entry['train']) if scale == 'full' else {}
    return Table(
        name=entry['name'],
        title=entry['title'] if scale == 'full' else entry['demo']['title'],
        task=entry['task'],
        scale=scale,
        metrics={name: Metric(**metric) for name, metric in entry['metrics'].items()},
        columns=entry['columns'],
        rows=rows,
        test_options=train.pop('test', []),
        train=train,
    )
