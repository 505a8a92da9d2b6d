"""Prints the Unicode tables of ttmm.c, at its end: what is a letter or a number; what NFC and BERT's steps need.

    pip install unicodedataplus tokenizers==0.22.2 && python3 test/unicode.py

The classes are those of Unicode 16, NFC is that of Unicode 9 (of the characters there were then: later ones are left
as they are), because these are what Hugging Face's tokenizers 0.22 has; peers.py compares every code point with it.
What BertNormalizer drops and lower-cases and BertPreTokenizer cuts off is asked of tokenizers itself, which mixes
Unicode 7 (control characters), 8 (marks, punctuation) and 17 (lower case).
A number is written in base 45, most significant digit first: a digit that another
one follows is a character of the upper half of the 90 from '#' to '~' without '?' and '\\', the last one of the lower.
"""
import unicodedataplus as unicodedata
from tokenizers import normalizers, pre_tokenizers

if unicodedata.unidata_version != "16.0.0":
    raise SystemExit(f"unicodedataplus has Unicode {unicodedata.unidata_version}, expected 16.0.0")

ALPHABET = [chr(c) for c in range(ord("#"), ord("~") + 1) if chr(c) not in "?\\"]


def pack(number):
    digits = ALPHABET[number % 45]
    while number := number // 45:
        digits = ALPHABET[45 + number % 45] + digits
    return digits


def zigzag(number):
    return 2 * number if number >= 0 else -2 * number - 1


def table(name, comment, numbers):
    text = "".join(map(pack, numbers))
    print(f"/* {comment[0].upper()}{comment[1:]}. */\nstatic const char *const {name}[] = {{")
    for i in range(0, len(text), 113):
        print(f'    "{text[i:i + 113]}",')
    print("    NULL};")


def steps(value):
    """(code point, value) wherever value(code point) is another than before; 0 at first."""
    before, found = 0, []
    for code in range(0x110000):
        now = 0 if 0xD800 <= code < 0xE000 else value(chr(code))
        if now != before:
            found.append((code, now))
            before = now
    return found


def deltas(numbers):
    before, found = 0, []
    for number in numbers:
        found.append(number - before)
        before = number
    return found


def classes():
    for name, first in ("letters", "L"), ("numbers", "N"):
        turns = steps(lambda c: unicodedata.category(c)[0] == first)
        table(f"packed_{name}", "where they begin and end in turn, each as the distance from the one before",
              deltas([code for code, _ in turns]))


def old(c):
    return unicodedata.age(c) != "Unassigned" and float(unicodedata.age(c)) <= 9.0


def nfc():
    combining = steps(lambda c: unicodedata.combining(c) if old(c) else 0)
    distance = deltas([code for code, _ in combining])
    table("packed_combining", "distance, canonical combining class: of the code points from there on",
          [x for d, (_, value) in zip(distance, combining) for x in (d, value)])
    singles, pairs = [], []
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if not parts or parts[0][0] == "<" or not old(chr(code)):
            continue
        parts = [int(p, 16) for p in parts]
        if len(parts) == 1:
            singles.append((code, parts[0]))
        else:
            again = unicodedata.normalize("NFC", "".join(map(chr, parts))) == chr(code)
            pairs.append((code, again, *parts))
    distance = deltas([s[0] for s in singles])
    table("packed_singles", "distance, what it decomposes to",
          [x for d, (_, to) in zip(distance, singles) for x in (d, to)])
    numbers, distance = [], deltas([p[0] for p in pairs])
    first, second = deltas([p[2] for p in pairs]), deltas([p[3] for p in pairs])
    for d, (_, again, _, _), a, b in zip(distance, pairs, first, second):
        numbers += [2 * d + again, zigzag(a), zigzag(b)]
    table("packed_pairs", "2 distance + (1: and back), the two it decomposes to, as differences from those before", numbers)


def bert():
    def normalizer(**step):
        off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
        return normalizers.BertNormalizer(**{**off, **step}).normalize_str

    clean, strip, lower = normalizer(clean_text=True), normalizer(strip_accents=True), normalizer(lowercase=True)
    cut = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for name, is_one in (
        ("dropped", lambda c: clean(c) == ""),
        ("marks", lambda c: strip("a" + c) == "a"),
        ("punctuation", lambda c: [word for word, _ in cut("a" + c + "b")] == ["a", c, "b"]),
    ):
        table(f"packed_{name}", "where they begin and end in turn, each as the distance from the one before",
              deltas([code for code, _ in steps(is_one)]))
    runs = []  # [first, last, step, what is added]
    for code in range(0x110000):
        to = lower(chr(code)) if not 0xD800 <= code < 0xE000 else chr(code)
        if len(to) > 1 or ord(to) == code:
            continue  # U+0130 becomes two
        last = runs[-1] if runs else [0, 0, 0, 0]
        step = code - last[1]
        if runs and last[3] == ord(to) - code and step <= 2 and (last[0] == last[1] or last[2] == step):
            last[1:3] = code, step
        else:
            runs.append([code, code, 1, ord(to) - code])
    distance = deltas([run[0] for run in runs])
    table("packed_lower", "runs: distance, 2 length + (1: every second one), what makes them lower-case",
          [x for d, (a, b, step, add) in zip(distance, runs) for x in (d, 2 * (b - a) + step - 1, zigzag(add))])


classes()
nfc()
bert()
