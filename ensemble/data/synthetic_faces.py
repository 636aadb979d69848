"""Drawn faces that show a chosen expression.

An expression is a set of facial action units (Ekman and Friesen, Facial Action
Coding System, 1978). Each face is another person, with a pose, a light and a
strength of expression of their own.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from configs.registry import unknown

# Action units by their numbers: 1 inner brow raiser, 2 outer brow raiser, 4 brow lowerer, 5 upper
# lid raiser, 6 cheek raiser, 7 lid tightener, 9 nose wrinkler, 10 upper lip raiser, 12 lip corner
# puller, 15 lip corner depressor, 17 chin raiser, 20 lip stretcher, 23 lip tightener, 25 lips
# part, 26 jaw drop. Each is 0 at rest and about 1 when the muscle acts fully.
_PROTOTYPES = {
    "neutral": {},
    "happy": {6: 0.9, 12: 1.0, 25: 0.8},
    "sad": {1: 1.0, 4: 0.4, 15: 1.0, 17: 0.4},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.8, 26: 1.0},
    "anger": {4: 1.3, 5: 0.2, 7: 0.8, 15: 0.3, 17: 0.5, 23: 1.0},
    "disgust": {4: 0.5, 6: 0.3, 7: 0.8, 9: 1.0, 10: 1.0, 15: 0.5, 25: 0.4},
    "fear": {1: 1.2, 2: 0.4, 4: 0.5, 5: 1.0, 15: 0.4, 20: 1.0, 25: 0.7, 26: 0.3},
    "contempt": {2: 1.3, 4: 0.4, 7: 0.9, 12: 1.3, 15: 0.3, 23: 0.5},
}
_ONE_SIDED = {"contempt": [2, 12]}  # units that act on the left or on the right only

EXPRESSIONS: tuple[str, ...] = tuple(_PROTOTYPES)


def draw_face(expression: str, rng: np.random.Generator, size: int = 96) -> np.ndarray:
    """Draws a new person who shows an expression.

    Args:
        expression: One of `EXPRESSIONS`.
        rng: Decides everything else: person, pose, strength, light, blur and noise.
        size: Height and width in pixels.

    Returns:
        An array of shape `(size, size, 3)`, uint8, RGB.

    Raises:
        ValueError: If the expression is not known.
    """
    if expression not in EXPRESSIONS:
        raise ValueError(unknown("expression", expression, EXPRESSIONS))
    sides = _act(expression, rng)
    units = sides.mean(axis=0)
    person = _Person(rng)
    canvas = _Canvas(size, person.background, rng)
    _draw_bust(canvas, person)
    _draw_head(canvas, person, units)
    _draw_front_hair(canvas, person)
    for side, half in zip((-1, 1), sides, strict=True):
        _draw_cheek(canvas, person, half, side)
        _draw_eye(canvas, person, half, side)
        _draw_brow(canvas, person, half, side)
    _draw_nose(canvas, person, units)
    _draw_mouth(canvas, person, sides)
    if person.glasses:
        _draw_glasses(canvas, person)
    return canvas.develop(rng)


def _act(expression: str, rng: np.random.Generator) -> np.ndarray:
    """Returns all units of both sides, of some strength and never quite pure: `(2, 27)`."""
    units = np.zeros(27)
    for unit, strength in _PROTOTYPES[expression].items():
        units[unit] = strength
    units = units * rng.uniform(0.65, 1.0) * rng.uniform(0.85, 1.15, 27)
    units += np.abs(rng.normal(0, 0.03, 27))
    # Open or closed lips alone shall not give an expression away.
    units[25] = units[25] * (rng.random() < 0.8) + 0.2 * rng.random() ** 3
    sides = np.stack([units, units])
    sides[rng.integers(2), _ONE_SIDED.get(expression, [])] = 0
    return sides


# A path is a complex array: x to the right plus 1j times y downwards, in half
# heads. The crown is at -1j, the chin at 1j. `side` is -1 (left) or 1 (right).
_ALONG = np.linspace(0, 1, 13)  # from one end of a stroke to the other
_ACROSS = np.linspace(-1, 1, 25)  # from corner to corner of an eye or a mouth
_BULGE = 1 - _ACROSS**2  # 0 at the corners, 1 between them
_TURN = np.linspace(0, 2 * np.pi, 48)  # once round, clockwise from the top
_OVERSAMPLING = 4  # a pixel is the mean of 4 x 4 drawn ones, which smooths all edges

Colour = tuple[int, ...]  # red, green, blue and, where it matters, opacity; 0..255

_SKINS = ["#ffe2c8", "#f5cfac", "#e7ba92", "#c9966e", "#9c6c4c", "#704b37"]
_HAIRS = ["#261e1c", "#4c3020", "#7c4e2c", "#bc8648", "#e0bc76", "#98989a", "#a24224"]
_IRISES = ["#54341e", "#3a5c86", "#466e4a", "#6e542c"]
_WHITE, _BLACK, _RED, _PINK = (250, 248, 242), (28, 24, 30), (92, 24, 30), (206, 92, 96)


class _Style(NamedTuple):
    """A hair style."""

    volume: float  # how far it stands off the head
    length: float  # how low it falls behind the head
    temples: tuple[float, float]  # heights of the hairline at the left and the right temple
    parting: tuple[float, float]  # where the hairline is highest: x from -1 to 1, and its height
    curls: int = 0  # waves along the outline


_STYLES = [
    _Style(0.01, -0.10, (-0.55, -0.55), (0.0, -0.88)),  # receding
    _Style(0.08, -0.05, (-0.35, -0.35), (0.0, -0.66)),  # short
    _Style(0.13, -0.05, (-0.30, -0.35), (-0.5, -0.76)),  # with a parting
    _Style(0.13, 0.40, (-0.46, -0.46), (0.0, -0.52)),  # with a fringe
    _Style(0.16, 0.80, (-0.05, -0.20), (0.45, -0.76)),  # bob
    _Style(0.13, 1.60, (-0.10, -0.10), (0.0, -0.80)),  # long
    _Style(0.24, 0.40, (-0.36, -0.36), (0.0, -0.62), curls=17),
]


class _Person:
    """What stays the same whatever the expression."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.skin = _pick(_SKINS, rng)
        self.hair = _pick(_HAIRS, rng)
        self.iris = _pick(_IRISES, rng)
        self.lips = _mix(self.skin, (176, 44, 58), rng.uniform(0.3, 0.55))
        self.shirt = tuple(rng.integers(70, 180, 3).tolist())
        self.background = tuple(rng.integers(175, 215, 3).tolist())
        self.style = _STYLES[rng.integers(len(_STYLES))]
        self.width = rng.uniform(0.72, 0.84)
        self.jaw = rng.uniform(0.08, 0.26)  # how much narrower than the temples
        self.eye_size = rng.uniform(0.20, 0.23)
        self.eye_gap = rng.uniform(0.33, 0.37)
        self.gaze = rng.uniform(-0.25, 0.25)
        self.brow_weight = rng.uniform(0.07, 0.11)
        self.brow_height = rng.uniform(0.33, 0.39)
        self.nose = rng.uniform(0.11, 0.155)
        self.mouth = rng.uniform(0.30, 0.36)
        self.lip_fullness = rng.uniform(0.8, 1.1)
        self.ink = rng.uniform(0.7, 1.1)  # how dark lines are
        self.glasses = rng.random() < 0.15

    def line(self, opacity: float) -> Colour:
        """Returns the colour of folds, wrinkles and outlines."""
        alpha = int(255 * min(max(self.ink * opacity, 0), 1))
        return *_mix(self.skin, (40, 12, 16), 0.65), alpha

    def outline(self, grow: float = 0.0, jaw_drop: float = 0.0) -> np.ndarray:
        """Returns the head's edge, clockwise from the crown."""
        x, y = np.sin(_TURN), -np.cos(_TURN)
        low = np.maximum(y, 0)
        x = (self.width + grow) * np.sign(x) * np.abs(x) ** 0.9 * (1 - self.jaw * low**2)
        return x + 1j * ((1 + grow) * y + 0.1 * jaw_drop * low)

    def hairdo(self) -> np.ndarray:
        """Returns the edge of the hair, clockwise from the crown."""
        return self.outline(self.style.volume) * (1 + 0.03 * np.sin(self.style.curls * _TURN))


class _Canvas:
    """Where shapes given in half heads are painted, for a head in some pose."""

    def __init__(self, size: int, background: Colour, rng: np.random.Generator) -> None:
        side = _OVERSAMPLING * size
        self._image = Image.new("RGB", (side, side), background)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        roll, self._yaw = rng.normal(0, 0.08), rng.uniform(-0.3, 0.3)  # radians
        self._scale = side * rng.uniform(0.38, 0.42)
        self._axes = self._scale * np.exp(1j * roll)
        self._centre = side * complex(rng.uniform(0.45, 0.55), rng.uniform(0.47, 0.55))

    def fill(self, path: np.ndarray, colour: Colour, depth: float = 1.0) -> None:
        """Paints the inside of a path, which lies `depth` times as far out as the face."""
        self._paint(self._project(path, depth), colour)

    def stroke(
        self, path: np.ndarray, colour: Colour, width: float | np.ndarray, depth: float = 1.0
    ) -> None:
        """Paints along a path, as with a brush: a single width is that of the middle."""
        if colour[3:] == (0,):  # many folds are at rest
            return
        if isinstance(width, float):
            width = width * (1 - 0.75 * np.linspace(-1, 1, len(path)) ** 2)
        points = self._project(path, depth)
        along = np.gradient(points)
        half = 0.5j * self._scale * width * along / np.maximum(np.abs(along), 1e-9)
        self._paint(_close(points - half, points + half), colour)

    def develop(self, rng: np.random.Generator) -> np.ndarray:
        """Returns the picture at its final size, with blur, light from one side and noise."""
        sharp = self._image.reduce(_OVERSAMPLING)
        blurred = sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.005) * sharp.width))
        pixels = np.asarray(blurred, dtype=np.float32)
        angle = rng.uniform(0, 2 * np.pi)
        x = np.linspace(-1, 1, sharp.width, dtype=np.float32)
        slope = np.cos(angle) * x + np.sin(angle) * x[:, None]
        light = rng.uniform(0.92, 1.04) * (1 + rng.uniform(0, 0.2) * slope)
        noise = rng.uniform(1, 3) * rng.standard_normal(pixels.shape, dtype=np.float32)
        return np.clip(pixels * light[:, :, None] + noise, 0, 255).astype(np.uint8)

    def _project(self, path: np.ndarray, depth: float) -> np.ndarray:
        skull = 1 - (path.real / 0.85) ** 2 - (path.imag / 1.2) ** 2
        z = 0.7 * depth * np.sqrt(np.maximum(skull, 0))
        x = path.real * np.cos(self._yaw) + z * np.sin(self._yaw)
        return self._centre + self._axes * (x + 1j * path.imag)

    def _paint(self, points: np.ndarray, colour: Colour) -> None:
        self._draw.polygon(points.view(np.float64).tolist(), fill=colour)


def _draw_bust(canvas: _Canvas, person: _Person) -> None:
    """Draws what lies behind the face: hair, shoulders, neck and ears."""
    hair, style = person.hairdo(), person.style
    sleek = (person.width + style.volume) * np.sign(hair.real) * np.abs(np.sin(_TURN)) ** 0.3
    fallen = 0.95 * sleek + 1j * style.length * np.abs(hair.imag) ** 0.5
    hair = np.where(hair.imag > 0, fallen, hair)
    canvas.fill(hair, _mix(person.hair, (0, 0, 0), 0.25), depth=0)
    canvas.fill(_ellipse(1.9j, 1.2, 0.8), person.shirt, depth=0)
    neck = np.array([0.34 + 0.6j, 0.32 + 1j, 0.42 + 1.18j, 1.32j])
    canvas.fill(_close(neck, -neck.conj()), _mix(person.skin, (60, 20, 20), 0.22), depth=0)
    for side in (-1, 1):
        ear = side * (person.width + 0.01) + 0.03j
        canvas.fill(_ellipse(ear, 0.11, 0.19), _mix(person.skin, (120, 40, 30), 0.12), depth=0)
        fold = side * (0.02 + 0.05 * np.sin(np.pi * _ALONG)) - 0.11j * np.cos(np.pi * _ALONG)
        canvas.stroke(ear + fold, person.line(0.6), 0.025, depth=0)


def _draw_head(canvas: _Canvas, person: _Person, units: np.ndarray) -> None:
    head = person.outline(jaw_drop=units[26])
    canvas.fill(head, person.skin, depth=0)
    canvas.stroke(head[11:37], person.line(0.45), 0.03, depth=0)
    for y in (-0.64, -0.73):
        wrinkle = 0.4 * _ACROSS + 1j * (y - 0.03 * _BULGE)
        canvas.stroke(wrinkle, person.line(0.25 * (units[1] + units[2] - 0.5)), 0.02)


def _draw_front_hair(canvas: _Canvas, person: _Person) -> None:
    x = -_ACROSS
    summit, height = person.style.parting
    temple = np.where(x < summit, *person.style.temples)
    distance = np.abs(x - summit) / (1 + summit * np.where(x < summit, 1, -1))
    y = height + (temple - height) * distance**2
    hairline = x * person.width * (1 - y**2) ** 0.45 + 1j * y
    crown = person.hairdo()[np.arange(-12, 13)]
    canvas.fill(np.concatenate([crown, hairline]), person.hair, depth=0)


def _draw_cheek(canvas: _Canvas, person: _Person, units: np.ndarray, side: int) -> None:
    nose_wrinkler, lip_raiser, corner_puller = units[[9, 10, 12]]
    blush = (*_mix(person.skin, (230, 80, 80), 0.5), int(30 + 40 * min(units[6], 1)))
    for radius in (0.17, 0.12):
        centre = side * 0.47 + 1j * (0.28 - 0.05 * units[6])
        canvas.fill(_ellipse(centre, radius, 0.7 * radius), blush)
    fold = side * (0.17 + person.mouth * _ALONG**0.8) + 1j * (0.28 + 0.28 * _ALONG**1.3)
    depth = max(0.8 * corner_puller, lip_raiser, nose_wrinkler) - 0.15
    canvas.stroke(fold - 0.05j * lip_raiser, person.line(0.75 * depth), 0.03)


def _draw_eye(canvas: _Canvas, person: _Person, units: np.ndarray, side: int) -> None:
    lid_raiser, cheek_raiser, lid_tightener = units[[5, 6, 7]]
    grief = np.clip(units[1] - units[2], 0, 1)
    squint = lid_tightener + cheek_raiser
    top = 0.64 + 0.32 * lid_raiser - 0.16 * squint - 0.1 * grief
    bottom = 0.44 + 0.06 * lid_raiser - 0.26 * squint - 0.22 * cheek_raiser
    # A lowered brow presses the lid down at the nose; in grief it hangs outside.
    slant = 0.4 * units[4] * (1 - grief) - 0.3 * grief
    upper = -top * (1 - np.abs(_ACROSS) ** 2.4) * (1 + slant * _ACROSS)
    lower = np.maximum(bottom * _BULGE, upper + 0.06)

    def place(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return side * (person.eye_gap + person.eye_size * x) + 1j * (person.eye_size * y - 0.08)

    def disc(x: float, y: float, radius: float) -> np.ndarray:
        ring = _ellipse(complex(x, y), radius, radius)
        between = [np.interp(ring.real, _ACROSS, lid) for lid in (upper, lower)]
        return place(ring.real, np.clip(ring.imag, *between))

    gaze = person.gaze * side
    canvas.fill(_close(place(_ACROSS, upper), place(_ACROSS, lower)), _WHITE)
    canvas.fill(disc(gaze, -0.06, 0.5), person.iris)
    canvas.fill(disc(gaze, -0.06, 0.26), _BLACK)
    canvas.fill(disc(gaze - 0.15 * side, -0.24, 0.11), _WHITE)
    canvas.stroke(place(_ACROSS, upper), _mix(person.skin, (20, 10, 12), 0.85), 0.055)
    canvas.stroke(place(_ACROSS, 1.05 * upper - 0.24), person.line(0.5), 0.02)
    canvas.stroke(place(_ACROSS, lower), person.line(0.7), 0.025)
    canvas.stroke(place(_ACROSS, lower + 0.22 + 0.1 * _BULGE), person.line(0.45 * squint), 0.025)


def _draw_brow(canvas: _Canvas, person: _Person, units: np.ndarray, side: int) -> None:
    inner_raiser, outer_raiser, lowerer, wrinkler = units[[1, 2, 4, 9]]
    grief = np.clip(inner_raiser - outer_raiser, 0, 1)
    inner = 0.2 * lowerer * (1 - 0.6 * grief) - 0.17 * inner_raiser + 0.06 * wrinkler
    middle = 0.08 * lowerer - 0.1 - 0.1 * inner_raiser - 0.2 * outer_raiser
    outer = 0.03 - 0.12 * outer_raiser + 0.1 * grief
    t = _ALONG
    x = person.eye_gap + person.eye_size * (2.25 * t - 1) - 0.06 * lowerer * (1 - t)
    y = inner * (1 - t) ** 2 + 2 * middle * t * (1 - t) + outer * t**2 - person.brow_height
    width = person.brow_weight * (1.25 - 0.9 * t**2) * np.minimum(1, 0.5 + 4 * t)
    canvas.stroke(side * x + 1j * y, _mix(person.hair, (30, 20, 20), 0.4), width)
    frown = side * (0.06 + 0.015 * np.cos(3 * t)) + 1j * (0.17 * t - 0.36)
    canvas.stroke(frown, person.line(0.7 * (lowerer + 0.5 * wrinkler - 0.25)), 0.025)


def _draw_nose(canvas: _Canvas, person: _Person, units: np.ndarray) -> None:
    wrinkler = units[9]
    width = person.nose * (1 + 0.15 * wrinkler)
    base = 1j * (0.3 - 0.05 * wrinkler)
    ridge = np.array([0.04 - 0.05j, width + base])
    canvas.fill(_close(ridge, -ridge.conj()), (255, 255, 255, 25), depth=1.25)
    for side in (-1, 1):
        wing = side * width * (0.75 + 0.3 * np.sin(np.pi * _ALONG)) + 1j * (0.1 * _ALONG - 0.09)
        canvas.stroke(base + wing, person.line(0.7), 0.03, depth=1.2)
        nostril = _ellipse(base + side * 0.5 * width + 0.02j, 0.03, 0.018)
        canvas.fill(nostril, person.line(0.8), depth=1.2)
        for y in (-0.04, 0.02, 0.08):
            fold = side * (0.02 + 0.1 * _ALONG) + 1j * (y + 0.05 * _ALONG)
            canvas.stroke(fold, person.line(0.9 * wrinkler - 0.15), 0.022, depth=1.15)
    tip = base + 0.55 * width * _ACROSS + 0.045j * _BULGE
    canvas.stroke(tip, person.line(0.8), 0.032, depth=1.25)


def _draw_mouth(canvas: _Canvas, person: _Person, sides: np.ndarray) -> None:
    lip_raiser, puller, chin_raiser, stretcher, tightener = sides.mean(0)[[10, 12, 17, 20, 23]]
    upper, lower = _part_lips(person, sides)
    fullness = person.lip_fullness * (1 - 0.75 * min(tightener, 1)) * _BULGE**0.8
    bow = 1 - 0.4 * np.exp(-((_ACROSS / 0.2) ** 2))
    top, bottom = upper - 0.07j * bow * fullness, lower + 0.085j * fullness
    canvas.fill(_close(top, bottom), person.lips)
    gap = (lower - upper).imag
    if gap.max() > 0.045:
        bared = min(stretcher + lip_raiser + puller, 1)
        teeth = np.minimum(0.11 * bared * _BULGE**0.5, gap)
        canvas.fill(_close(upper, lower), _RED)
        canvas.fill(_close(lower - 0.35j * gap * _BULGE, lower), _PINK)
        canvas.fill(_close(upper, upper + 1j * teeth), _WHITE)
    else:
        canvas.stroke((upper + lower) / 2, _mix(person.lips, (40, 0, 10), 0.6), 0.035)
    canvas.stroke(bottom + 0.05j, person.line(0.2 + 0.4 * chin_raiser), 0.02)
    for side, corner, puller in zip((-1, 1), upper[[0, -1]], sides[:, 12], strict=True):
        dimple = side * (0.04 - 0.08 * (_ALONG - 0.5) ** 2) + 0.12j * (_ALONG - 0.5)
        canvas.stroke(corner + dimple, person.line(0.25 + 0.6 * puller), 0.03)


def _part_lips(person: _Person, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the upper and the lower edge of the mouth's opening, from left to right."""
    lip_raiser, puller, chin_raiser = sides.mean(0)[[10, 12, 17]]
    stretcher, tightener, part, jaw_drop = sides.mean(0)[[20, 23, 25, 26]]
    half = np.where(_ACROSS < 0, *sides[:, :, None])  # every unit at every x
    reach = 1 + 0.3 * half[12] + 0.25 * half[20] - 0.12 * half[23] - 0.3 * half[26]
    corner = 0.56 - 0.15 * half[12] + 0.13 * half[15] + 0.05 * half[26]
    middle = 0.56 + 0.08 * jaw_drop + 0.05 * sides[:, 12].min() - 0.06 * chin_raiser
    y = middle * _BULGE + corner * np.abs(_ACROSS) ** 1.8
    line = person.mouth * reach * _ACROSS + 1j * (y - 0.03 * lip_raiser * _BULGE)
    gap = part * (0.1 + 0.12 * puller) * (1 - min(tightener, 1)) + 0.34 * jaw_drop
    gap = 1j * gap * _BULGE ** (0.6 - 0.25 * min(stretcher, 1))
    above = 0.3 - 0.15 * puller + 0.15 * min(jaw_drop, 1)
    return line - above * gap - 0.05j * lip_raiser * _BULGE, line + (1 - above) * gap


def _draw_glasses(canvas: _Canvas, person: _Person) -> None:
    bridge = 0.1 * _ACROSS - 1j * (0.1 + 0.03 * _BULGE)
    rim = _ellipse(complex(person.eye_gap, -0.06), 0.27, 0.25)
    arm = np.linspace(person.eye_gap + 0.27, person.width, 5) - 0.08j
    for path in (bridge, rim, arm, -rim.conj(), -arm.conj()):
        canvas.stroke(path, _BLACK, np.full(len(path), 0.035))


def _ellipse(centre: complex, width: float, height: float) -> np.ndarray:
    """Returns an ellipse with half axes `width` and `height`, clockwise from its top."""
    return centre + width * np.sin(_TURN) - 1j * height * np.cos(_TURN)


def _close(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Joins two paths with the same direction into one outline."""
    return np.concatenate([there, back[::-1]])


def _pick(palette: list[str], rng: np.random.Generator) -> Colour:
    """Returns a colour of a palette, a little changed in brightness and in hue."""
    colour = ImageColor.getrgb(palette[rng.integers(len(palette))])
    shift = rng.normal(0, 9) + rng.normal(0, 3, 3)
    return tuple(np.clip(colour + shift, 0, 255).astype(int).tolist())


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    """Returns the colour that is `other` to a share of 0..1, else `one`."""
    return tuple(int((1 - share) * a + share * b) for a, b in zip(one, other, strict=True))
