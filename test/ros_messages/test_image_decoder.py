"""Every encoding against a reference that is written out pixel by pixel."""

from array import array
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest

from feature_matcher_ros.errors import ImageError
from feature_matcher_ros.ros.depth_decoder import decode_compressed_depth, decode_depth
from feature_matcher_ros.ros.image_decoder import decode_compressed_image, decode_image

HEIGHT, WIDTH = 8, 10
RANDOM = np.random.default_rng(3)
BGR = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3))
BGR16 = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 3))


@dataclass
class Message:
    encoding: str = "mono8"
    data: Any = b""
    width: int = WIDTH
    height: int = HEIGHT
    step: int = 0
    is_bigendian: int = 0


@dataclass
class Compressed:
    format: str
    data: Any


def to_message(encoding: str, rows: list[list[int]], bits: int = 8, big: bool = False, padding: int = 0) -> Message:
    """Rows of values, each as long as the encoding wants, to bytes one value at a time."""
    order = "big" if big else "little"
    data = b"".join(b"".join(v.to_bytes(bits // 8, order) for v in row) + b"\xee" * padding for row in rows)
    return Message(encoding, data, step=len(rows[0]) * bits // 8 + padding, is_bigendian=int(big))


def interleaved(image: np.ndarray, order: str) -> list[list[int]]:
    alpha = 65535 if image.max() > 255 else 255
    channel = {"b": 0, "g": 1, "r": 2}
    return [[alpha if c == "a" else int(pixel[channel[c]]) for pixel in row for c in order] for row in image]


def grey(b: float, g: float, r: float) -> float:
    return 0.299 * r + 0.587 * g + 0.114 * b


def grey_of(image: np.ndarray) -> np.ndarray:
    return np.array([[grey(*pixel) for pixel in row] for row in image])


def assert_close(image: np.ndarray, expected: np.ndarray, tolerance: float = 1.0) -> None:
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image.astype(float), np.clip(expected, 0, 255), atol=tolerance)


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("order", ["bgr", "rgb", "bgra", "rgba"])
def test_eight_bit_colour(order: str, padding: int) -> None:
    message = to_message(f"{order}8", interleaved(BGR, order), padding=padding)
    np.testing.assert_array_equal(decode_image(message, color=True), BGR)
    assert_close(decode_image(message), grey_of(BGR), 0.51 + 0.01)


@pytest.mark.parametrize("padding", [0, 3, 6])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["bgr", "rgb", "bgra", "rgba"])
def test_sixteen_bit_colour(order: str, big: bool, padding: int) -> None:
    message = to_message(f"{order}16", interleaved(BGR16, order), 16, big, padding)
    assert_close(decode_image(message, color=True), BGR16 * 255 / 65535, 0.501)
    assert_close(decode_image(message), grey_of(BGR16) * 255 / 65535, 0.51)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_eight_bit_grey_is_a_view(encoding: str, color: bool, padding: int) -> None:
    rows = BGR[..., 0].tolist()
    message = to_message(encoding, rows, padding=padding)
    image = decode_image(message, color)
    np.testing.assert_array_equal(image, rows)
    assert np.shares_memory(image, np.frombuffer(message.data, np.uint8))
    assert not image.flags.writeable
    assert cv2.resize(image, None, fx=2, fy=2).shape == (2 * HEIGHT, 2 * WIDTH)  # OpenCV takes it as it is


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_sixteen_bit_grey_scales_the_whole_range(encoding: str, padding: int, big: bool) -> None:
    values = BGR16[..., 1].copy()
    values[0, :4] = [0, 65535, 128, 129]  # 128/257 is just below one half, 129/257 just above
    image = decode_image(to_message(encoding, values.tolist(), 16, big, padding))
    assert_close(image, values * (255 / 65535), 0.5)
    assert image[0, :4].tolist() == [0, 255, 0, 1]


@pytest.mark.parametrize(("bits", "brightest"), [(10, 600), (10, 1023), (12, 1024), (12, 4095), (14, 9000)])
def test_what_a_sensor_of_fewer_bits_saw_stays_visible(bits: int, brightest: int) -> None:
    values = np.random.default_rng(bits).integers(0, brightest + 1, (HEIGHT, WIDTH))
    values[0, 0] = brightest
    expected = values * (255 / (2**bits - 1))
    for message in (to_message("mono16", values.tolist(), 16), to_message("16UC1", values.tolist(), 16, True, 4)):
        assert_close(decode_image(message), expected, 0.5)
    png = Compressed("mono16; png compressed ", encoded(values.astype(np.uint16)))
    assert_close(decode_compressed_image(png), expected, 0.5)


def test_unnamed_colour_is_bgr() -> None:
    for encoding, order in (("8UC3", "bgr"), ("8UC4", "bgra")):
        message = to_message(encoding, interleaved(BGR, order))
        np.testing.assert_array_equal(decode_image(message, color=True), BGR)


def mosaic(image: np.ndarray, pattern: str) -> list[list[int]]:
    names = [pattern[:2], pattern[2:]]
    return [
        [int(image[y, x]["bgr".index(names[y % 2][x % 2])]) for x in range(image.shape[1])]
        for y in range(image.shape[0])
    ]


def demosaic(values: list[list[int]], pattern: str, y: int, x: int) -> list[float]:
    """Blue, green and red of one inner pixel: its own colour, and the mean of the nearest that have another."""
    names = [pattern[:2], pattern[2:]]
    result = []
    for color in "bgr":
        near = [
            (abs(dy) + abs(dx), values[y + dy][x + dx])
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if names[(y + dy) % 2][(x + dx) % 2] == color
        ]
        closest = min(distance for distance, _ in near)
        nearest = [value for distance, value in near if distance == closest]
        result.append(sum(nearest) / len(nearest))
    return result


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer(pattern: str, bits: int) -> None:
    image, scale = (BGR, 1.0) if bits == 8 else (BGR16, 255 / 65535)
    values = mosaic(image, pattern)
    message = to_message(f"bayer_{pattern}{bits}", values, bits, padding=2)
    inner = (slice(1, -1), slice(1, -1))
    expected = np.array([[demosaic(values, pattern, y, x) for x in range(1, WIDTH - 1)] for y in range(1, HEIGHT - 1)])
    color = decode_image(message, color=True)
    assert_close(color[inner], expected * scale)
    assert_close(decode_image(message)[inner], grey_of(expected) * scale, 1.5)
    assert color.shape == (HEIGHT, WIDTH, 3)


def bgr_from_yuv(y: int, u: int, v: int) -> list[float]:
    """BT.601, luma 16 to 235."""
    scaled, cb, cr = 1.16438 * (y - 16), u - 128, v - 128
    return [scaled + 2.01723 * cb, scaled - 0.39176 * cb - 0.81297 * cr, scaled + 1.59603 * cr]


LUMA = RANDOM.integers(16, 236, (HEIGHT, WIDTH))
CB, CR = RANDOM.integers(16, 241, (2, HEIGHT, WIDTH))


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv_422(encoding: str) -> None:
    rows, expected = [], np.zeros((HEIGHT, WIDTH, 3))
    for y in range(HEIGHT):
        row: list[int] = []
        for x in range(0, WIDTH, 2):
            u, v, y0, y1 = (int(a) for a in (CB[y, x], CR[y, x], LUMA[y, x], LUMA[y, x + 1]))
            row += [u, y0, v, y1] if encoding in ("yuv422", "uyvy") else [y0, u, y1, v]
            expected[y, x], expected[y, x + 1] = bgr_from_yuv(y0, u, v), bgr_from_yuv(y1, u, v)
        rows.append(row)
    message = to_message(encoding, rows, padding=4)
    np.testing.assert_array_equal(decode_image(message), LUMA)
    assert_close(decode_image(message, color=True), expected)


@pytest.mark.parametrize("padding", [0, 4])
def test_nv21_and_nv24(padding: int) -> None:
    pad = b"\0" * padding
    luma = b"".join(bytes(row.tolist()) + pad for row in LUMA)
    half = b"".join(
        bytes(int(plane[y, x]) for x in range(0, WIDTH, 2) for plane in (CR, CB)) + pad for y in range(0, HEIGHT, 2)
    )
    full = b"".join(
        bytes(int(plane[y, x]) for x in range(WIDTH) for plane in (CB, CR)) + 2 * pad for y in range(HEIGHT)
    )
    for encoding, chroma, block in (("nv21", half, 2), ("nv24", full, 1)):
        message = Message(encoding, luma + chroma, step=WIDTH + padding)
        expected = [
            [bgr_from_yuv(*(int(a) for a in (LUMA[y, x], *(c[y - y % block, x - x % block] for c in (CB, CR)))))
             for x in range(WIDTH)]
            for y in range(HEIGHT)
        ]  # fmt: skip
        np.testing.assert_array_equal(decode_image(message), LUMA)
        assert_close(decode_image(message, color=True), np.array(expected))


def test_the_messages_of_every_library_are_taken() -> None:
    rows = BGR[..., 0].tolist()
    data = to_message("mono8", rows).data
    for form in (bytes, bytearray, lambda d: array("B", d), lambda d: np.frombuffer(d, np.uint8), memoryview):
        np.testing.assert_array_equal(decode_image(Message(data=form(data), step=WIDTH)), rows)
        assert decode_depth(Message("16UC1", form(data), width=5, step=10)).shape == (HEIGHT, 5)
    png = cv2.imencode(".png", BGR.astype(np.uint8))[1].tobytes()
    for form in (bytes, lambda d: array("B", d), lambda d: np.frombuffer(d, np.uint8)):
        np.testing.assert_array_equal(decode_compressed_image(Compressed("png", form(png)), color=True), BGR)


def test_the_last_row_may_lack_its_padding() -> None:
    message = to_message("mono8", BGR[..., 0].tolist(), padding=6)
    message.data = message.data[:-6]
    np.testing.assert_array_equal(decode_image(message), BGR[..., 0])


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (Message("jpeg", b"x", step=10), "'jpeg' is not supported: publish one of"),
        (Message("32FC1", b"x", step=40), "'32FC1' is not supported"),
        (Message("", b"x", step=10), "encoding '' is not supported"),
        (Message("mono8", b"", 0, 0), "an image of 0x0 pixels"),
        (Message("rgb8", bytes(80), step=10), "has 30 bytes a row but a step of 10"),
        (Message("mono8", bytes(80), step=0), "has 10 bytes a row but a step of 0"),
        (Message("mono8", bytes(79), step=10), "takes 80 bytes but holds 79"),
        (Message("mono8", b"", step=10), "takes 80 bytes but holds 0"),
        (Message("mono16", bytes(10), 7680, 4320, 15360), "takes 66355200 bytes but holds 10"),
        (Message("yuv422", bytes(180), 9, step=20), "'yuv422' cannot have 9x8 pixels"),
        (Message("nv21", bytes(180), 10, 7, step=10), "'nv21' cannot have 10x7 pixels"),
        (Message("nv21", bytes(80), step=10), None),  # grey needs the first plane alone
        (Message("bayer_rggb8", b"x", 1, 1, 1), "1x1 pixels is too small"),
    ],
)
def test_a_bad_image_is_refused_with_one_sentence(message: Message, sentence: str | None) -> None:
    if sentence is None:
        assert decode_image(message).shape == (HEIGHT, WIDTH)
        return
    with pytest.raises(ImageError) as caught:
        decode_image(message)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_colour_planes_that_are_cut_off_are_noticed() -> None:
    for encoding in ("nv21", "nv24"):
        with pytest.raises(ImageError, match="bytes but holds 80"):
            decode_image(Message(encoding, bytes(80), step=10), color=True)


def test_small_and_large_images() -> None:
    assert decode_image(Message("mono8", b"\x07", 1, 1, 1)).tolist() == [[7]]
    assert decode_image(Message("rgb8", bytes([10, 20, 30]), 1, 1, 3), color=True).tolist() == [[[30, 20, 10]]]
    large = decode_image(Message("mono8", np.zeros(7680 * 4320, np.uint8), 7680, 4320, 7680))
    assert large.shape == (4320, 7680)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def test_compressed_images() -> None:
    smooth = cv2.resize(BGR.astype(np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    jpeg = Compressed("rgb8; jpeg compressed bgr8", encoded(smooth, ".jpg"))
    assert_close(decode_compressed_image(jpeg, color=True), smooth, 40)
    assert_close(decode_compressed_image(jpeg), grey_of(smooth), 12)
    png = Compressed("png", encoded(smooth))
    np.testing.assert_array_equal(decode_compressed_image(png, color=True), smooth)
    assert_close(decode_compressed_image(png), grey_of(smooth), 1.01)  # the PNG library cuts the fraction off
    grey_png = Compressed("mono8; png compressed ", encoded(smooth[..., 0]))
    for color in (False, True):
        np.testing.assert_array_equal(decode_compressed_image(grey_png, color), smooth[..., 0])


def test_a_compressed_sixteen_bit_image_is_scaled_like_a_raw_one() -> None:
    values = BGR16[..., 0].astype(np.uint16)
    image = decode_compressed_image(Compressed("mono16; png compressed ", encoded(values)))
    assert_close(image, values * (255 / 65535), 0.5)


def test_a_compressed_mosaic_is_decoded_like_a_raw_one() -> None:
    values = mosaic(BGR, "grbg")
    raw = to_message("bayer_grbg8", values)
    message = Compressed("bayer_grbg8; png compressed ", encoded(np.array(values, np.uint8)))
    for color in (False, True):
        np.testing.assert_array_equal(decode_compressed_image(message, color), decode_image(raw, color))
    converted = Compressed("bayer_grbg8; png compressed bgr8", encoded(BGR.astype(np.uint8)))
    np.testing.assert_array_equal(decode_compressed_image(converted, color=True), BGR)


def test_an_orientation_note_does_not_turn_the_image() -> None:
    plain = encoded(np.zeros((24, 32), np.uint8), ".jpg")
    note = bytes.fromhex("4578696600004d4d002a00000008000101120003000000010006000000000000")  # Exif, orientation 6
    turned = plain[:2] + b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note + plain[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_GRAYSCALE).shape == (32, 24)
    assert decode_compressed_image(Compressed("jpeg", turned)).shape == (24, 32)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (Compressed("jpeg", b""), "format 'jpeg' is no complete JPEG or PNG"),
        (Compressed("jpeg", b"not an image"), "format 'jpeg' is no complete"),
        (Compressed("jpeg", encoded(np.zeros((48, 64), np.uint8), ".jpg")[:-20]), "is no complete JPEG or PNG"),
        (Compressed("png", encoded(RANDOM.integers(0, 255, (48, 64), np.uint8))[:200]), "is no complete JPEG or PNG"),
        (Compressed("16UC1; compressedDepth png", b"x"), "holds depth, not an image"),
        (Compressed("tiff", encoded(np.zeros((8, 8), np.float32), ".tiff")), "holds float32"),
    ],
)
def test_bad_compressed_images_are_refused(message: Compressed, sentence: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_compressed_image(message)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("padding", [0, 3, 4])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_integer_depth_is_millimetres(encoding: str, big: bool, padding: int) -> None:
    values = RANDOM.integers(1, 65535, (HEIGHT, WIDTH))
    values[0, :2] = [0, 65535]
    depth = decode_depth(to_message(encoding, values.tolist(), 16, big, padding))
    expected = [[float("nan") if v in (0, 65535) else np.float32(v / 1000) for v in row] for row in values.tolist()]
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, expected)
    np.testing.assert_array_equal(
        decode_depth(to_message(encoding, values.tolist(), 16, big), 5000.0)[1:], (values[1:] / 5000).astype(np.float32)
    )


@pytest.mark.parametrize("padding", [0, 2, 8])
@pytest.mark.parametrize("big", [False, True])
def test_floating_point_depth_is_metres(big: bool, padding: int) -> None:
    values = RANDOM.uniform(0.1, 30, (HEIGHT, WIDTH)).astype(np.float32)
    values[0, :5] = [np.nan, np.inf, -np.inf, 0, -1]
    rows = values.view(np.uint32).tolist()
    depth = decode_depth(to_message("32FC1", rows, 32, big, padding))
    assert np.isnan(depth[0, :5]).all()
    np.testing.assert_array_equal(depth.ravel()[5:], values.ravel()[5:])


def test_depth_of_another_encoding_is_refused() -> None:
    with pytest.raises(ImageError, match="'rgb8' is none of depth"):
        decode_depth(Message("rgb8", bytes(240), step=30))
    with pytest.raises(ImageError, match="takes 160 bytes but holds 100"):
        decode_depth(Message("16UC1", bytes(100), step=20))


def test_compressed_depth() -> None:
    values = RANDOM.integers(1, 5000, (HEIGHT, WIDTH)).astype(np.uint16)
    values[0, 0] = 0
    header = np.array([0], np.int32).tobytes() + np.array([0, 0], np.float32).tobytes()
    expected = np.where(values == 0, np.nan, (values / 1000)).astype(np.float32)
    for name, data in (
        ("16UC1; compressedDepth", header + encoded(values)),
        ("16UC1; compressedDepth png", header + encoded(values)),
        ("16UC1; png compressed ", encoded(values)),
        ("png", encoded(values)),
    ):
        np.testing.assert_array_equal(decode_compressed_depth(Compressed(name, data)), expected)


def test_compressed_floating_point_depth_is_inverse_depth() -> None:
    """Quantised one pixel at a time as the transport's documentation has it: value = A / depth + B."""
    quantisation, largest = 100.0, 10.0
    a = quantisation * (quantisation + 1.0)
    b = 1.0 - a / largest
    depth = RANDOM.uniform(0.3, 9.9, (HEIGHT, WIDTH))
    depth[2, 3] = np.nan
    values = [[int(a / d + b) if d < largest else 0 for d in row] for row in depth.tolist()]
    header = np.array([0], np.int32).tobytes() + np.array([a, b], np.float32).tobytes()
    message = Compressed("32FC1; compressedDepth png", header + encoded(np.array(values, np.uint16)))
    decoded = decode_compressed_depth(message)
    assert np.isnan(decoded[2, 3])
    known = ~np.isnan(depth)
    # Cutting off the fraction of the value leaves an error of up to one step of inverse depth.
    assert np.all(np.abs(1 / decoded[known] - 1 / depth[known]) < 1.01 / a)
    assert np.all(decoded[known] > 0)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (Compressed("16UC1; compressedDepth rvl", b"x" * 50), "set the transport's format to png"),
        (Compressed("16UC1; compressedDepth png", b"x" * 50), "is no complete JPEG or PNG"),
        (Compressed("16UC1; compressedDepth png", b""), "is no complete"),
        (Compressed("png", encoded(np.zeros((8, 8), np.uint8))), "must be a grey 16-bit PNG, not uint8"),
    ],
)
def test_bad_compressed_depth_is_refused(message: Compressed, sentence: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_compressed_depth(message)
    assert sentence in str(caught.value)
