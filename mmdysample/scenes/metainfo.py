"""The classes of the scenes data: the one place that names them."""

THINGS = ('ball', 'crate', 'drum', 'cone', 'ring', 'table', 'fence', 'tree')
STUFF = ('ground', 'wall', 'sky')
CLASSES = THINGS + STUFF

PALETTE = [  # a list: mmdet takes a tuple for a single colour
    (230, 72, 72),
    (226, 158, 58),
    (70, 130, 220),
    (245, 116, 36),
    (196, 70, 190),
    (142, 92, 60),
    (240, 214, 84),
    (58, 160, 74),
    (148, 148, 140),
    (176, 120, 110),
    (120, 190, 235),
]

THING_METAINFO = dict(classes=THINGS, palette=PALETTE[: len(THINGS)])
SEMANTIC_METAINFO = dict(classes=CLASSES, palette=PALETTE)
PANOPTIC_METAINFO = dict(
    classes=CLASSES, thing_classes=THINGS, stuff_classes=STUFF, palette=PALETTE
)

SPLITS = ('train', 'val')
