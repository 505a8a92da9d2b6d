"""Prints the Unicode tables of ttmm.c, at its end: what is a letter or a number, and what NFC needs.

    pip install unicodedataplus && python3 test/unicode.py

The classes are those of Unicode 16, NFC is that of Unicode 9 (of the characters there were then: later ones are left
as they are), because these are what Hugging Face's tokenizers 0.22 has; peers.py compares every code point with it.
A number is written in base 45, most significant digit first: a digit that another
one follows is a character of the upper half of the 90 from '#' to '~' without '?' and '\\', the last one of the lower.
"""
import unicodedataplus as unicodedata

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


classes()
nfc()
