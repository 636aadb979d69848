"""Laws of cropping: where the square lies, and that no image goes without a status."""

import io

import numpy as np
import pytest
from PIL import Image

from configs.errors import DataError
from configs.schema import FaceConfig
from ensemble.data.decoding import ImageError
from ensemble.data.loading import Split
from ensemble.data.reading import inspect
from ensemble.faces.crops import crop_faces
from ensemble.faces.registry import DETECTORS, Box, DetectorSpec, Face
from ensemble.faces.store import face_images


def coordinates(height, width):
    """Pixels that tell their own place: x, y and a constant."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 7)], axis=-1).astype(np.uint8)


def finder(*boxes, eyes=None):
    """A detector that always answers the same."""
    return lambda _: [Face(Box(*box), 0.9, eyes) for box in boxes]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def crop(image, *boxes, **options):
    """Returns the pixels of the only crop."""
    (only,) = crop_faces(image, finder(*boxes), FaceConfig(**options)).crops
    return only.pixels


def test_a_square_lies_around_the_middle_of_the_box():
    image = coordinates(100, 200)

    # 20 pixels and a tenth of it on both sides make 24, around (60, 45).
    assert np.array_equal(crop(image, (50, 40, 20, 10), margin=0.1), image[33:57, 48:72])
    assert np.array_equal(crop(image, (50, 40, 10, 20), margin=0), image[40:60, 45:65])


def test_a_square_moves_to_stay_inside():
    image = coordinates(100, 200)

    assert np.array_equal(crop(image, (0, 2, 20, 20), margin=0.5), image[:40, :40])
    assert np.array_equal(crop(image, (185, 85, 15, 15), margin=1), image[55:, 155:])


def test_a_margin_shrinks_before_anything_is_made_up():
    image = coordinates(100, 200)

    assert np.array_equal(crop(image, (60, 5, 80, 90), margin=0.5), image[:, 50:150])


def test_the_rim_is_repeated_where_the_face_is_longer_than_the_image():
    image = coordinates(100, 200)

    found = crop(image, (20, 0, 160, 100), margin=0.3)

    assert found.shape == (160, 160, 3)
    assert np.array_equal(found[30:130], image[:, 20:180])
    assert (found[:30] == image[0, 20:180]).all()
    assert (found[130:] == image[-1, 20:180]).all()


def test_a_box_is_told_within_the_image():
    (only,) = crop_faces(coordinates(100, 120), finder((-10, 90, 40, 40))).crops

    assert only.box == (0, 90, 30, 10)
    assert only.score == 0.9


def test_one_face_or_all_are_taken_the_largest_first():
    image = coordinates(100, 200)
    boxes = (10, 10, 20, 20), (100, 10, 40, 40), (50, 60, 30, 30)

    one = crop_faces(image, finder(*boxes))
    every = crop_faces(image, finder(*boxes), FaceConfig(several="all"))

    assert [crop.box for crop in one.crops] == [boxes[1]]
    assert [crop.box for crop in every.crops] == [boxes[1], boxes[2], boxes[0]]
    assert one.found == every.found == 3
    assert one.status == every.status == "found"


def test_an_image_without_a_face_is_skipped_taken_whole_or_an_error():
    image = coordinates(40, 50)

    skipped = crop_faces(image, finder())
    assert (skipped.status, skipped.crops, skipped.reason) == ("no_face", (), "no face is found")

    whole = crop_faces(image, finder(), FaceConfig(no_face="whole"))
    assert whole.status == "whole"
    assert np.array_equal(whole.crops[0].pixels, image)
    assert whole.crops[0].box == (0, 0, 50, 40)

    with pytest.raises(DataError, match=r"no face in party\.png"):
        crop_faces(image, finder(), FaceConfig(no_face="error"), "party.png")


def test_without_a_detector_the_image_is_the_face():
    image = coordinates(40, 50)

    result = crop_faces(png(image), None, FaceConfig(no_face="error"))

    assert result.status == "whole"
    assert np.array_equal(result.crops[0].pixels, image)


@pytest.mark.parametrize("source", [b"", b"no image", png(coordinates(64, 64))[:90]])
def test_what_cannot_be_read_has_a_status_and_a_reason(source):
    result = crop_faces(source, finder((0, 0, 9, 9)), FaceConfig(no_face="error"))

    assert result.status == "unreadable"
    assert result.crops == ()
    assert result.reason


def test_a_failing_detector_ends_nothing():
    def fail(image):
        raise RuntimeError("out of order")

    result = crop_faces(coordinates(40, 40), fail)

    assert result.status == "unreadable"
    assert "out of order" in result.reason


@pytest.mark.parametrize("shape", [(20, 900), (4000, 2)])
def test_a_sliver_has_no_face_and_no_detector_is_asked(shape):
    assert crop_faces(coordinates(*shape), finder((0, 0, 9, 9))).status == "no_face"


def test_a_large_photo_is_searched_small_and_cut_in_full():
    image = np.zeros((1500, 3000, 3), np.uint8)
    image[300:900, 1200:1800] = 200
    seen = []

    def detect(small):
        seen.append(small.shape)
        rows, columns = np.nonzero(small[..., 0] > 100)
        left, top = columns.min(), rows.min()
        return [Face(Box(left, top, columns.max() + 1 - left, rows.max() + 1 - top), 1.0)]

    (only,) = crop_faces(image, detect, FaceConfig(margin=0)).crops

    assert seen == [(512, 1024, 3)]
    assert only.box == pytest.approx((1200, 300, 600, 600), abs=3)  # a pixel of the small one
    assert only.pixels.shape[0] == pytest.approx(600, abs=3)


def test_a_small_image_is_searched_enlarged_and_cut_as_it_is():
    image = coordinates(24, 48)
    seen = []

    def detect(large):
        seen.append(large.shape)
        return [Face(Box(40, 20, 60, 48), 1.0)]

    (only,) = crop_faces(image, detect, FaceConfig(margin=0)).crops

    assert seen == [(96, 192, 3)]
    assert only.box == (10, 5, 15, 12)
    assert np.array_equal(only.pixels, image[4:19, 10:25])  # around (17.5, 11)


def test_a_photo_is_turned_upright_first():
    image = coordinates(100, 140)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, with the clock
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", exif=exif)

    found = crop(file.getvalue(), (10, 20, 30, 30), margin=0)

    assert np.array_equal(found, np.rot90(image, -1)[20:50, 10:40])


def two_lights(tilt):
    """Two white dots, 60 pixels apart, on a line tilted by degrees, and where they are."""
    y, x = np.mgrid[:200, :200]
    across, down = 30 * np.cos(np.radians(tilt)), 30 * np.sin(np.radians(tilt))
    eyes = ((100 - across, 100 - down), (100 + across, 100 + down))
    dots = sum(np.exp(-((x - ex) ** 2 + (y - ey) ** 2) / 18) for ex, ey in eyes)
    return np.repeat(np.uint8(255 * np.clip(dots, 0, 1))[..., None], 3, axis=2), eyes


@pytest.mark.parametrize("tilt", [-40, -7, 0, 25])
def test_aligned_eyes_are_level(tilt):
    image, eyes = two_lights(tilt)
    detector = finder((40, 40, 120, 120), eyes=eyes)

    (only,) = crop_faces(image, detector, FaceConfig(margin=0, align=True)).crops

    bright = only.pixels[..., 0].astype(float)
    y, x = np.mgrid[:120, :120]
    left, right = bright * (x < 60), bright * (x >= 60)
    heights = [(half * y).sum() / half.sum() for half in (left, right)]
    places = [(half * x).sum() / half.sum() for half in (left, right)]
    assert heights[0] == pytest.approx(heights[1], abs=0.5)
    assert places[1] - places[0] == pytest.approx(60, abs=1)


def test_faces_are_not_turned_unasked_nor_in_profile():
    image, eyes = two_lights(25)
    near = (eyes[0], (eyes[0][0] + 3, eyes[0][1] + 9))

    straight = crop(image, (40, 40, 120, 120))
    for options, points in (({}, eyes), ({"align": True}, near), ({"align": True}, None)):
        detector = finder((40, 40, 120, 120), eyes=points)
        (only,) = crop_faces(image, detector, FaceConfig(**options)).crops
        assert np.array_equal(only.pixels, straight)


class Photos:
    """A store of photos in memory."""

    def __init__(self, **photos):
        self._photos = photos

    def read(self, name):
        return self._photos[name]


@pytest.fixture
def searches():
    """The images that the detector `bright` was asked about."""
    asked = []

    def detect(image):
        asked.append(image)
        rows, columns = np.nonzero(image[..., 2] == 255)
        if not rows.size:
            return []
        left, top = int(columns.min()), int(rows.min())
        return [Face(Box(left, top, columns.max() + 1 - left, rows.max() + 1 - top), 1.0)]

    with DETECTORS.temporary(DetectorSpec("bright", "what is bright", lambda *_: detect)):
        yield asked


def test_a_store_of_faces_reads_faces_and_searches_each_photo_once(searches):
    photo = coordinates(100, 120)
    photo[30:50, 40:60, 2] = 255
    store = face_images(Photos(a=png(photo)), FaceConfig(detector="bright", margin=0.25))

    for _ in range(3):
        assert np.array_equal(store.read("a"), photo[25:55, 35:65])
    assert len(searches) == 1


def test_a_store_of_faces_refuses_a_photo_without_one(searches):
    photos = Photos(dark=png(coordinates(40, 40)), torn=b"x")

    store = face_images(photos, FaceConfig(detector="bright"))
    with pytest.raises(ImageError, match="no face is found"):
        store.read("dark")
    with pytest.raises(ImageError, match="not an image"):
        store.read("torn")
    with pytest.raises(DataError, match="no face in dark"):
        face_images(photos, FaceConfig(detector="bright", no_face="error")).read("dark")
    whole = face_images(photos, FaceConfig(detector="bright", no_face="whole")).read("dark")
    assert np.array_equal(whole, coordinates(40, 40))


def test_a_split_of_faces_leaves_out_photos_without_one(searches):
    photo = coordinates(100, 120)
    photo[30:50, 40:60, 2] = 255
    photos = Photos(a=png(photo), dark=png(coordinates(100, 100)), torn=b"x", b=png(photo[:, 9:]))
    store = face_images(photos, FaceConfig(detector="bright"))
    names = ("a", "dark", "torn", "b")
    split = Split(store, names, np.zeros(4, np.int32), np.ones(4, np.float32), (None,) * 4)

    inspection = inspect(split, 24)

    assert inspection.readable.names == ("a", "b")
    assert inspection.digests[0] == inspection.digests[1]  # the same face
    assert [(problem.name, problem.reason) for problem in inspection.problems] == [
        ("dark", "no face is found"),
        ("torn", "not an image"),
    ]


def test_without_a_detector_a_store_is_the_photos_themselves():
    photos = Photos()

    assert face_images(photos, FaceConfig()) is photos
