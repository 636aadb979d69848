"""Images come out upright, in their colours and square; a bad one is refused with a reason."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from ensemble.data.decoding import MAX_PIXELS, ImageError, decode, decode_grey, decode_whole

ORANGE = (230, 120, 40)
WHITE = (255, 255, 255)
EXIF_ORIENTATION = 0x0112


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(height=600, width=800):
    """A smooth picture with detail at several scales, unlike any of its mirror images."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    channels = [np.sin(9 * x + 5 * y), np.cos(23 * y * x + 4 * x), np.sin(40 * y) * x]
    return Image.fromarray(np.uint8(127.5 + 127 * np.stack(channels, axis=-1)))


def quarters(size=64):
    """Red, green, blue and white quarters, row by row."""
    image = Image.new("RGB", (size, size), "white")
    half = size // 2
    image.paste((255, 0, 0), (0, 0, half, half))
    image.paste((0, 255, 0), (half, 0, size, half))
    image.paste((0, 0, 255), (0, half, half, size))
    return image


def png_header(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    ends = struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + ends


def assert_uniform(pixels, colour, tolerance=1):
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(int) - np.asarray(colour))
    assert difference.max() <= tolerance, pixels[0, 0]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "JPEG", "PPM", "TGA"])
def test_colours_survive_every_common_format(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.new("RGB", (40, 30), ORANGE), kind, **options)
    pixels = decode(data, 16)
    assert pixels.shape == (16, 16, 3)
    assert_uniform(pixels, ORANGE, tolerance=3 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("1", 1, "PNG", WHITE),
        ("L", 77, "PNG", (77, 77, 77)),
        ("LA", (77, 255), "PNG", (77, 77, 77)),
        ("LA", (77, 0), "PNG", WHITE),
        ("RGBA", (*ORANGE, 255), "PNG", ORANGE),
        ("RGBA", (*ORANGE, 0), "PNG", WHITE),
        ("RGBA", (0, 0, 0, 51), "PNG", (204, 204, 204)),
        ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
        ("CMYK", (255, 0, 0, 0), "JPEG", (0, 255, 255)),
        ("YCbCr", (128, 128, 128), "TIFF", (128, 128, 128)),
        ("I;16", 100 * 257, "PNG", (100, 100, 100)),
        ("I;16", 100 * 257, "TIFF", (100, 100, 100)),
        ("I", 100 * 257, "TIFF", (100, 100, 100)),
        ("I", -5, "TIFF", (0, 0, 0)),
        ("F", 0.4, "TIFF", (102, 102, 102)),
        ("F", 102.0, "TIFF", (102, 102, 102)),
        ("F", 102.0 * 257, "TIFF", (102, 102, 102)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, kind, expected):
    data = encode(Image.new(mode, (20, 20), colour), kind)
    assert_uniform(decode(data, 8), expected, tolerance=2)


def test_sixteen_bit_grey_keeps_its_shades():
    shades = np.repeat(np.arange(256, dtype=np.uint16) * 257, 256).reshape(256, 256)
    pixels = decode(encode(Image.fromarray(shades)), 256)
    np.testing.assert_array_equal(pixels[:, 0, 0], np.arange(256))


def png(shape_and_samples, colour_type, bits, *chunks):
    """A PNG from raw samples of shape (height, width, ...), with further chunks before them."""
    samples = np.asarray(shape_and_samples).astype(">u2" if bits == 16 else "u1")
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


LONG_TEXT = zlib.compress(b"<x/>" * 500_000)  # 2 MB


@pytest.mark.parametrize(
    "chunk",
    [
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG_TEXT),
        (b"zTXt", b"Comment\0\0" + LONG_TEXT),
        (b"iCCP", b"profile\0\0" + LONG_TEXT),
        (b"tEXt", b"Comment\0" + b"x" * 2_000_000),
    ],
    ids=lambda chunk: chunk[0].decode(),
)
def test_long_metadata_is_no_damage(chunk):
    pixels = np.array(photograph(20, 30))
    np.testing.assert_array_equal(decode_whole(png(pixels, 2, 8, chunk)), pixels)


def test_orientation_counts_beside_long_metadata():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    pixels = np.array(photograph(20, 30))
    chunks = [(b"eXIf", exif.tobytes()[6:]), (b"zTXt", b"Comment\0\0" + LONG_TEXT)]
    expected = np.rot90(pixels, -1)
    np.testing.assert_array_equal(decode_whole(png(pixels, 2, 8, *chunks)), expected)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("PNG", np.uint16),
        ("TIFF", np.uint16),
        ("TIFF", ">u2"),
        ("TIFF", np.int32),
        ("TIFF", np.float32),
    ],
)
def test_values_of_8_bits_stay_what_they_are_in_a_wider_type(kind, dtype):
    shades = np.arange(256, dtype=np.uint8).reshape(16, 16)
    wide = Image.fromarray(shades.astype(dtype))
    np.testing.assert_array_equal(decode_whole(encode(wide, kind))[:, :, 0], shades)


@pytest.mark.parametrize("scale", [1, 257])
def test_16_bit_colours_are_read_from_the_range_that_holds_them(scale):
    colours = np.array(photograph(20, 30))
    data = png(colours.astype(np.uint16) * scale, 2, 16)
    np.testing.assert_array_equal(decode_whole(data), colours)


@pytest.mark.parametrize("scale", [1, 257])
def test_16_bit_ppm_is_read_from_the_range_that_holds_it(scale):
    colours = np.array(photograph(20, 30))
    header = b"P6\n%d %d\n65535\n" % colours.shape[1::-1]
    data = header + (colours.astype(">u2") * scale).astype(">u2").tobytes()
    np.testing.assert_array_equal(decode_whole(data), colours)


@pytest.mark.parametrize("scale", [1, 257])
def test_16_bit_grey_with_transparency_is_read_from_the_range_that_holds_it(scale):
    grey = np.array(photograph(20, 30))[:, :, 0]
    opaque = np.dstack([grey, np.full_like(grey, 255)]).astype(np.uint16) * scale
    np.testing.assert_array_equal(decode_whole(png(opaque, 4, 16))[:, :, 1], grey)
    assert_uniform(decode_whole(png(opaque * [1, 0], 4, 16)), WHITE)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("scale", [1, 257])
def test_16_bit_colours_of_tiff(order, compression, scale):
    colours = np.array(photograph(20, 30))
    data = tiff(colours.astype(np.uint16) * scale, order, compression)
    np.testing.assert_array_equal(decode_whole(data), colours)


def tiff(samples, order, compression):
    """A TIFF of one strip from 16-bit RGB; compression 1 is none, 8 is deflate."""
    end = "<" if order == "II" else ">"
    strip = samples.astype(end + "u2").tobytes()
    strip = zlib.compress(strip) if compression == 8 else strip
    height, width = samples.shape[:2]
    short, long = 3, 4
    tags = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 3, 8 + len(strip)),
        (259, short, 1, compression),
        (262, short, 1, 2),
        (273, long, 1, 8),
        (277, short, 1, 3),
        (278, long, 1, height),
        (279, long, 1, len(strip)),
    ]
    entries = [
        struct.pack(end + "HHI", tag, kind, count)
        + (
            struct.pack(end + "HH", value, 0)
            if kind == short and count == 1
            else struct.pack(end + "I", value)
        )
        for tag, kind, count, value in tags
    ]
    depths = struct.pack(end + "HHH", 16, 16, 16)
    directory = struct.pack(end + "H", len(tags)) + b"".join(entries) + struct.pack(end + "I", 0)
    start = struct.pack(end + "HI", 42, 8 + len(strip) + len(depths))
    return order.encode() + start + strip + depths + directory


def test_transparency_of_16_bit_colours_is_kept():
    colours = np.dstack([np.array(photograph(8, 8)), np.full((8, 8), 255)]).astype(np.uint16)
    np.testing.assert_array_equal(decode_whole(png(colours, 6, 16)), colours[:, :, :3])
    colours[:, :, 3] = 0
    assert_uniform(decode_whole(png(colours, 6, 16)), WHITE)


def test_black_stays_black():
    assert_uniform(decode_whole(png(np.zeros((8, 8, 3)), 2, 16)), (0, 0, 0))


def test_floats_that_are_no_numbers_do_no_harm():
    values = np.full((8, 8), 0.5, dtype=np.float32)
    values[0, 0], values[7, 7] = np.nan, np.inf
    pixels = decode(encode(Image.fromarray(values), "TIFF"), 8)
    assert_uniform(pixels[1:7, 1:7], (128, 128, 128))
    assert_uniform(pixels[0, 0], (0, 0, 0))


def test_palette_gives_its_colours():
    data = encode(quarters().convert("P", palette=Image.Palette.ADAPTIVE), "PNG")
    np.testing.assert_array_equal(decode(data, 64), np.array(quarters()))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_becomes_white(kind):
    image = Image.new("P", (20, 20), 0)
    image.putpalette([*ORANGE, 0, 0, 255])
    image.paste(1, (10, 0, 20, 20))
    pixels = decode(encode(image, kind, transparency=0), 20)
    assert_uniform(pixels[:, :10], WHITE)
    assert_uniform(pixels[:, 10:], (0, 0, 255))


def test_transparent_colour_key_becomes_white():
    data = encode(Image.new("RGB", (8, 8), ORANGE), "PNG", transparency=ORANGE)
    assert_uniform(decode(data, 8), WHITE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several_is_taken(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert_uniform(decode(data, 8), (255, 0, 0), tolerance=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_orientation_is_undone(kind, orientation, undo):
    upright = photograph(60, 80)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    data = encode(upright.transpose(undo), kind, exif=exif, **options)
    expected = decode(np.array(upright), 32).astype(int)
    assert np.abs(decode(data, 32) - expected).mean() < 3


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the EXIF block
def test_damaged_exif_leaves_the_pixels():
    data = encode(photograph(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xffnonsense")
    assert np.ptp(decode(data, 32)) > 100


def test_stretches_to_a_square():
    image = Image.new("RGB", (80, 20), "red")
    image.paste((0, 0, 255), (40, 0, 80, 20))
    pixels = decode(encode(image), 10)
    assert_uniform(pixels[:, :4], (255, 0, 0))
    assert_uniform(pixels[:, 6:], (0, 0, 255))


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((512, 512), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert_uniform(decode(stripes, 32), (127, 127, 127), tolerance=2)


@pytest.mark.parametrize("size", [16, 96, 224])
def test_reduced_decoding_is_close_to_full_decoding(size):
    data = encode(photograph(1200, 1600), "JPEG", quality=95)
    full = np.array(Image.open(io.BytesIO(data)))
    difference = np.abs(decode(data, size).astype(int) - decode(full, size))
    assert difference.mean() < 2
    assert difference.max() < 16


def test_small_jpeg_is_enlarged_from_all_its_pixels():
    data = encode(quarters(32), "JPEG", quality=95, subsampling=0)
    difference = np.abs(decode(data, 96).astype(int) - decode(np.array(quarters(32)), 96))
    assert difference.mean() < 4


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1), (30, 40, 3)])
def test_arrays_are_read_like_files(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(array.reshape(shape[:2] if shape[-1] != 3 else shape))
    np.testing.assert_array_equal(decode(array, 24), decode(encode(image), 24))


def test_result_is_new_and_writable():
    array = np.zeros((8, 8, 3), dtype=np.uint8)
    decode(array, 8)[:] = 1
    assert not array.any()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ImageError, match=r"pixels of shape"):
        decode(array, 8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"happy face\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (b"\x00" * 1000, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "a drawing"),
    ],
)
def test_what_is_no_image_is_refused(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_file_is_refused(kind, kept):
    data = encode(photograph(120, 160), kind)
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        decode(data[: int(len(data) * kept)], 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about odd tags
def test_noise_in_a_file_never_raises_anything_else(kind):
    rng = np.random.default_rng(1)
    clean = np.frombuffer(encode(photograph(60, 80), kind), dtype=np.uint8)
    for _ in range(60):
        data = clean.copy()
        places = rng.integers(0, rng.choice([60, len(data)]), 8)
        data[places] = rng.integers(0, 256, 8)
        with suppress(ImageError):
            assert decode(data.tobytes(), 16).shape == (16, 16, 3)


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (MAX_PIXELS + 1, 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_header_is_refused_before_decoding(width, height):
    with pytest.raises(ImageError, match=f"at most {MAX_PIXELS:,} are read"):
        decode(png_header(width, height), 8)


@pytest.mark.filterwarnings("error")
def test_huge_header_is_refused_whatever_pillow_is_told(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match=r"30000 x 30000 pixels; at most"):
        decode(png_header(30_000, 30_000), 8)


def test_threads_see_what_one_thread_sees():
    kinds = ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]
    files = [encode(photograph(90 + 10 * i, 120), kind) for i, kind in enumerate(kinds)] * 5
    expected = [decode(data, 48) for data in files]
    with ThreadPoolExecutor(8) as pool:
        received = list(pool.map(lambda data: decode(data, 48), files))
    np.testing.assert_array_equal(received, expected)


def test_brightness_is_that_of_the_colours():
    data = encode(photograph(30, 40))

    grey = decode_grey(data, 16)

    assert grey.dtype == np.uint8
    assert np.array_equal(grey, Image.fromarray(decode(data, 16)).convert("L"))


def test_a_whole_image_keeps_its_pixels_and_is_turned_upright():
    image = photograph(30, 40)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # turn by a quarter, with the clock

    assert np.array_equal(decode_whole(encode(image)), np.asarray(image))
    assert np.array_equal(decode_whole(encode(image, exif=exif)), np.rot90(image, -1))
    assert np.array_equal(decode_whole(np.asarray(image)), np.asarray(image))
    assert decode_whole(encode(image, "JPEG")).shape == (30, 40, 3)


def test_a_whole_image_that_is_damaged_is_refused():
    with pytest.raises(ImageError, match="truncated"):
        decode_whole(encode(photograph(30, 40))[:300])
