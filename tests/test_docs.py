"""The documentation against the code: blocks run, tables agree, named files exist."""

from __future__ import annotations

import importlib.util
import json
import logging
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from mmdysample import build_upsampler, upsampler_names
from mmdysample.upsamplers import base

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(DOCS.rglob('*.md'))
UPSAMPLER_PAGES = sorted(
    path for path in (DOCS / 'upsamplers').glob('*.md') if path.stem != 'index'
)

_BLOCK = re.compile(r'^<!-- test(?:: (\S+))? -->\n```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_PATH = re.compile(r'(?<![\w/.$*-])(?:configs|docs|mmdysample|tests|tools)/[\w./-]*\w')
_WRITTEN = re.compile(r'--(?:out|plot|work-dir) \S+')  # files that a command makes
#: In paths: NAME stands for any, and `smooth` is the upsampler that a reader adds.
_EXAMPLES = ('NAME', 'smooth')
_TABLE = r'<!-- {} -->\n\n((?:\|.*\n)+)'


def read_table(page: Path, marker: str) -> list[list[str]]:
    """Cells of the table below a marker, the heading's row first and the rule left out."""
    found = re.search(_TABLE.format(re.escape(marker)), page.read_text())
    assert found, f'{page.name} has no table marked {marker!r}'
    rows = [line.strip('|').split('|') for line in found[1].splitlines()]
    return [[cell.strip() for cell in row] for row in rows[:1] + rows[2:]]


def value(cell: str):
    """What a cell in code type says, as Python reads it."""
    return eval(cell.strip('`'), {'__builtins__': {}})


def marked_class(page: Path) -> type:
    """The class that a page's table of options is about."""
    found = re.search(r'<!-- options: (\w+) -->', page.read_text())
    assert found, f'{page.name} has no table of options'
    return next(e.cls for e in base._UPSAMPLERS.values() if e.cls.__name__ == found[1])


# Blocks -------------------------------------------------------------------------------------------


def write_example_data(folder: Path) -> None:
    """The two small data sets that extend/dataset.md speaks of."""
    from PIL import Image

    noise = np.random.default_rng(0)
    box = dict(id=1, image_id=1, category_id=2, bbox=[10, 20, 50, 40], area=2000, iscrowd=0)
    coco = dict(
        images=[dict(id=1, file_name='a.jpg', width=320, height=240)],
        annotations=[box],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
    )
    for split in ('train', 'val'):
        pets, leaves = folder / 'data/pets', folder / 'data/leaves'
        for path in (pets / split, leaves / 'images' / split, leaves / 'annotations' / split):
            path.mkdir(parents=True)
        (pets / 'annotations').mkdir(exist_ok=True)
        (pets / f'annotations/{split}.json').write_text(json.dumps(coco))
        picture = Image.fromarray(noise.integers(0, 256, (240, 320, 3), dtype=np.uint8))
        picture.save(pets / split / 'a.jpg')
        picture.resize((480, 360)).save(leaves / 'images' / split / 'a.jpg')
        labels = noise.choice([0, 1, 255], (360, 480)).astype(np.uint8)
        Image.fromarray(labels).save(leaves / 'annotations' / split / 'a.png')


@pytest.mark.parametrize(
    'page',
    [page for page in PAGES if '<!-- test' in page.read_text()],
    ids=lambda page: str(page.relative_to(DOCS)),
)
def test_marked_blocks_run(page, tmp_path, monkeypatch):
    """Blocks share a namespace; a marker with a name writes a file, and test files are run."""
    text = page.read_text()
    if 'import mm' in text:
        pytest.importorskip('mmdet')
        pytest.importorskip('mmseg')
    blocks = list(_BLOCK.finditer(text))
    assert len(blocks) == text.count('<!-- test'), 'a marker is not followed by a Python block'
    if page.name == 'dataset.md':
        write_example_data(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(base, '_UPSAMPLERS', dict(base._UPSAMPLERS))
    before = set(sys.modules)
    namespace = {'__name__': 'docs'}
    try:
        for block in blocks:
            name, code = block.groups()
            if name is None:
                lines_before = text.count('\n', 0, block.start(2))
                exec(compile('\n' * lines_before + code, str(page), 'exec'), namespace)
                continue
            target = tmp_path / name
            target.parent.mkdir(exist_ok=True)
            target.write_text(code)
            if name.startswith('test_'):
                command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', name]
                done = subprocess.run(command, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
    finally:
        for name in set(sys.modules) - before:
            if str(tmp_path) in str(getattr(sys.modules[name], '__file__', None)):
                del sys.modules[name]


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'page',
    [ROOT / 'README.md', *PAGES, *sorted((ROOT / 'configs').rglob('README.md'))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_files_that_a_page_names_exist(page):
    text = _WRITTEN.sub('', page.read_text())
    links = re.findall(r'\]\(((?!\w+:|#)[^)\s#]+)', text)
    missing = [link for link in links if not (page.parent / link).exists()]
    # Of a link, the target was checked already; `mmdet::...` and URLs are no paths of ours.
    prose = re.sub(r'\]\([^)]*\)|\w+:\S+', '', text)
    paths = {path for path in _PATH.findall(prose) if not any(word in path for word in _EXAMPLES)}
    missing += [path for path in sorted(paths) if not (ROOT / path).exists()]
    assert not missing


def test_every_type_has_a_page_in_the_navigation():
    nav = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']
    config = load_site_module('navigation').on_config(dict(docs_dir=str(DOCS), nav=nav))
    (section,) = (entry for entry in config['nav'] if 'upsamplers/index.md' in str(entry))
    (listed,) = section.values()
    assert listed[0] == 'upsamplers/index.md' and len(listed) == len(set(listed))
    heads = {}
    for page in UPSAMPLER_PAGES:
        types = re.findall(r'`(\w+)`', page.read_text().splitlines()[2])
        assert types, f'{page.name} does not begin with its types'
        heads.update(dict.fromkeys(types, page))
    assert sorted(heads) == upsampler_names()
    for page in set(heads.values()):
        assert f'upsamplers/{page.name}' in listed


def test_necks_and_heads_are_registered():
    det, seg = pytest.importorskip('mmdet.registry'), pytest.importorskip('mmseg.registry')
    registries = dict(detection=det, instance=det, panoptic=det, semantic=seg, depth=seg)
    _, *rows = read_table(DOCS / 'usage.md', 'hosts')
    for tasks, types, *_ in rows:
        for task in tasks.split(', '):
            for name in re.findall(r'`(\w+)`', types):
                assert registries[task].MODELS.get(name) is not None, (task, name)


@pytest.mark.parametrize('page', sorted((DOCS / 'api').glob('*.md')), ids=lambda page: page.stem)
def test_api_pages_name_what_exists(page):
    for package in ('mmdet', 'mmseg'):
        pytest.importorskip(package)
    names = re.findall(r'^::: (\S+)$', page.read_text(), re.MULTILINE)
    assert names
    for name in names:
        pkgutil.resolve_name(name)


# Tables -------------------------------------------------------------------------------------------

each_page = pytest.mark.parametrize('page', UPSAMPLER_PAGES, ids=lambda page: page.stem)


@each_page
def test_options_are_those_of_the_constructor(page):
    cls = marked_class(page)
    parameters = base.constructor_options(cls)
    accepted = {name: p.default for name, p in parameters.items() if name != 'in_channels'}
    _, *rows = read_table(page, f'options: {cls.__name__}')
    assert {value_name.strip('`'): value(default) for value_name, default, _ in rows} == accepted


@each_page
def test_members_are_those_of_the_registry(page):
    cls = marked_class(page)
    implied = {
        name: entry.defaults
        for name, entry in base._UPSAMPLERS.items()
        if entry.cls is cls and entry.defaults
    }
    if not implied:
        return
    (_, *options), *rows = read_table(page, 'members')
    stated = {
        name.strip('`'): {o.strip('`'): value(v) for o, v in zip(options, values, strict=True)}
        for name, *values in rows
    }
    assert stated == implied


def cost(name: str) -> tuple[int, int]:
    """Parameters, and MACs that one input pixel more adds, at 256 channels."""
    up = build_upsampler(name, in_channels=256)
    return sum(p.numel() for p in up.parameters()), up.macs(1, 2) - up.macs(1, 1)


def number(cell: str) -> int:
    return int(cell.replace(',', ''))


@each_page
def test_costs_are_those_of_the_modules(page):
    _, *rows = read_table(page, 'cost')
    stated = {name.strip('`'): (number(params), number(macs)) for name, params, macs in rows}
    assert stated == {name: cost(name) for name in stated}
    of_class = {name for name, entry in base._UPSAMPLERS.items() if entry.cls is marked_class(page)}
    assert set(stated) == of_class - {'interpolate'}


def test_the_comparison_agrees_with_code_and_measurements():
    latency = json.loads((DOCS / 'benchmarks/latency_cpu.json').read_text())['rows']
    times = {
        (row['candidate'], row['direction']): f'{row["to_bilinear"]:.2f}'
        for row in latency
        if row['kind'] == 'upsamplers' and row.get('threads', 1) == 1
    }
    exports = json.loads((DOCS / 'benchmarks/onnx_export.json').read_text())['types']
    _, *rows = read_table(DOCS / 'upsamplers/index.md', 'comparison')
    stated = set()
    for link, guide, factors, params, macs, forward, backward, sizes in rows:
        name = re.match(r'\[`(\w+)`\]', link)[1]
        stated.add(name)
        parameters, per_input = cost(name)
        assert (number(params), number(macs)) == (parameters, round(per_input / 4)), name
        assert guide == ('yes' if build_upsampler(name, 256).guided else 'no'), name
        assert (forward, backward) == (times[name, 'forward'], times[name, 'forward_backward']), (
            name
        )
        assert factors == ('any' if takes_any_factor(name) else '2'), name
        # The logits of sapa_i are unscaled inner products, so its softmax magnifies their rounding;
        # freqfusion passes two softmaxes, and what they give decides on the points to read.
        assert exports[name]['fixed'] < (4e-6 if name in ('sapa_i', 'freqfusion') else 2e-6), name
        assert sizes == ('free' if isinstance(exports[name]['free'], float) else 'fixed'), name
    # An upsampler joins the table when its time and its export are measured.
    assert stated == {name for name, _ in times if name in upsampler_names() and name in exports}
    assert {'dysample', 'carafe', 'sapa_b', 'nearest', 'bilinear'} < stated


def takes_any_factor(name: str) -> bool:
    """Whether the type can be built for factor 3."""
    try:
        build_upsampler(name, 288, 3)
    except ValueError:
        return False
    return True


# The site's own code ------------------------------------------------------------------------------


def load_site_module(name: str):
    spec = importlib.util.spec_from_file_location(f'site_{name}', DOCS / '_site' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_out_of_the_docs_become_paths(caplog):
    pytest.importorskip('latex2mathml')
    hooks = load_site_module('hooks')
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(DOCS / 'x.md'), src_path='x.md'))
    config = {'docs_dir': str(DOCS)}
    text = 'See [bccd](../configs/bccd), [the tool](../tools/train.py), [here](kernels.md).'
    expected = 'See `configs/bccd`, the tool (`tools/train.py`), [here](kernels.md).'
    assert hooks.on_page_markdown(text, page, config) == expected
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        hooks.on_page_markdown('[gone](../configs/gone.py)', page, config)
    assert 'x.md links to ../configs/gone.py, which does not exist' in caplog.text


def test_formulas_become_mathml():
    pytest.importorskip('latex2mathml')
    hooks = load_site_module('hooks')
    html = hooks.on_page_content(r'<span class="arithmatex">\(a &lt; b^2\)</span>', None)
    assert '<math' in html and '<msup>' in html and 'arithmatex' not in html


def test_docstrings_become_markdown():
    pytest.importorskip('griffe')
    to_markdown = load_site_module('roles').to_markdown
    text = to_markdown(
        'As :func:`mmdysample.build_upsampler` or :class:`FPN`, :math:`a_b`.\n\n'
        '.. code-block:: python\n\n    x = 1\n\nEnd.\n'
    )
    assert '<autoref optional identifier="mmdysample.build_upsampler">' in text
    assert '<code>FPN</code>' in text and '$a_b$' in text
    assert '```python\nx = 1\n```' in text and text.endswith('End.\n')
