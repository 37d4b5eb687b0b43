"""Scripts that leave what ``tools/train.py`` and ``tools/test.py`` leave, and do no work."""

TRAIN = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
logs = folder / '20260101_000000' / 'vis_data'
logs.mkdir(parents=True, exist_ok=True)
(logs / 'scalars.json').write_text(json.dumps(dict(step=10, time=0.5, loss=1.0)) + '\\n')
(folder / Path(sys.argv[1]).name).write_text('')
(folder / 'provenance.json').write_text(json.dumps([dict(device='d', revision='r', versions={})]))
(folder / 'epoch_3.pth').write_text('weights')
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
"""
TEST = """
import json, sys
from pathlib import Path
assert Path(sys.argv[2]).name == 'epoch_3.pth'
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1]) / '20260101_000001'
folder.mkdir(parents=True)
(folder / 'result.json').write_text(json.dumps({'coco/bbox_mAP': 0.25}))
"""
