"""Text that nobody should train on: a generator for each kind, which makes any number of different ones."""

import base64
import json
from collections.abc import Callable
from random import Random

SENTENCES = (
    "The storm passed over the hills before anybody in the village had closed a window.",
    "We keep the price of our offers low, and that is what the people who come to us want to have.",
    "To be honest, nobody knew what to do with the letters that they had found in the attic.",
    "Sign up today and be the first to hear of our new products with every newsletter.",
    "It is one of the oldest bridges in the country, and it was rebuilt with stone from the quarry.",
    "Please contact the administrator of this site to have your access restored.",
)
FOREIGN = (
    "Старый мельник каждое утро выходил на крыльцо и смотрел, не идёт ли кто по дороге из города.",
    "Élève modèle, Zoë rêvait déjà d'être célèbre à l'âge où les autres préféraient les goûters.",
    "Der müde Bäcker träumte von süßen Brötchen, größer als die Türme über den Dächern.",
    "Борынгы шәһәрнең урамнары тар һәм кәкре иде, ә өйләрнең тәрәзәләре кечкенә.",
    "ランプの明かりが消えると、部屋の中は急に静かになった。",
)
TOPICS = ("cheap shoes", "car insurance", "loan", "casino bonus", "weight loss", "hotel deals", "replica watches")
EXTRAS = (
    "best",
    "online",
    "buy",
    "discount",
    "free",
    "top",
    "near me",
    "2024",
    "review",
    "price",
    "sale",
    "order",
)
MENU = (
    "Home", "About", "About Us", "Contact", "Login", "Register", "Sitemap", "Privacy Policy", "FAQ",
    "News", "Blog", "Careers", "Press", "Support", "My Account", "Cart (0)", "Search", "Back to top", "Next »",
    "« Previous", "Share", "Tweet", "Print", "English", "Deutsch", "Help", "Downloads", "Gallery", "Events",
    "Lorem", "Ipsum", "Dolor sit", "Consectetur", "Best of the week", "Shop", "Men", "Women", "Kids", "Gift Cards",
)  # fmt: skip
PROVIDERS = ("Google", "Meta Platforms", "Microsoft", "Hotjar", "LinkedIn", "This website", "Adobe", "Criteo")
LOREM = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
    "incididunt",
    "ut",
    "labore",
    "et",
    "dolore",
    "magna",
    "aliqua",
    "enim",
    "ad",
    "minim",
    "veniam",
    "quis",
    "nostrud",
    "exercitation",
    "ullamco",
    "laboris",
    "nisi",
    "aliquip",
    "ex",
    "ea",
    "commodo",
    "consequat",
]


def repeated_lines(draw: Random) -> str:
    """A few lines over and over."""
    lines = draw.sample(SENTENCES, draw.randint(1, 3))
    return "\n".join(lines * draw.randint(8, 60))


def repeated_sentences(draw: Random) -> str:
    """The same within a single line."""
    return " ".join(draw.sample(SENTENCES, draw.randint(1, 3)) * draw.randint(8, 60))


def symbols(draw: Random) -> str:
    """Marks, as of an editor's canvas or a broken font."""
    return " ".join("".join(draw.choices("#$%&*@!~^=+<>|/\\_-.", k=draw.randint(1, 12))) for _ in range(300))


def hexadecimal(draw: Random) -> str:
    """A dump of bytes: in pairs, in groups, with addresses, or a list of digests."""
    width = draw.choice([1, 2, 4, 16, 32])
    addressed = draw.random() < 0.5 and width < 16
    lines = []
    for number in range(draw.randint(20, 120)):
        groups = " ".join(draw.randbytes(width).hex() for _ in range(max(1, 16 // width)))
        lines.append(f"{16 * number:08x}  {groups}" if addressed else groups)
    return "\n".join(lines)


def base64_blobs(draw: Random) -> str:
    """Binary data in letters: in lines, or in one."""
    data = base64.b64encode(draw.randbytes(draw.randint(500, 5000))).decode()
    width = draw.choice([64, 76, len(data)])
    return "\n".join(data[start : start + width] for start in range(0, len(data), width))


def numbers(draw: Random) -> str:
    """Rows of measurements without a word."""
    separator, rows = draw.choice([" ", ", ", "\t", ";"]), draw.randint(30, 200)
    whole = draw.random() < 0.5
    return "\n".join(
        separator.join(
            str(draw.randint(0, 999)) if whole else f"{draw.gauss(0, 100):.4f}" for _ in range(draw.choice([3, 8]))
        )
        for _ in range(rows)
    )


def spaced_letters(draw: Random) -> str:
    """Text with a blank behind each letter."""
    return " ".join(" ".join(draw.choices(SENTENCES, k=draw.randint(5, 30))).replace(" ", ""))


def bullets(draw: Random) -> str:
    """Lists of two or three words, and nothing else."""
    mark = draw.choice(["-", "•"])
    return "\n".join(
        f"{mark} {' '.join(draw.sample(EXTRAS, draw.randint(1, 3)))}" for _ in range(draw.randint(40, 90))
    )


def keywords(draw: Random) -> str:
    """What a shop wants to be found for, in any order."""
    words = [*draw.sample(TOPICS, 2), *draw.sample(EXTRAS, 5)]
    return draw.choice([" ", ", "]).join(draw.choices(words, k=draw.randint(120, 400)))


def teasers(draw: Random) -> str:
    """Beginnings of articles, each cut off."""
    lines = [" ".join(sentence.split()[: draw.randint(4, 9)]) for sentence in draw.choices(SENTENCES, k=30)]
    return "\n".join(f"{line}..." for line in lines)


def navigation(draw: Random) -> str:
    """The menus of a web page."""
    return draw.choice(["\n", "\n", " | "]).join(draw.choices(MENU, k=draw.randint(60, 150)))


def cookies(draw: Random) -> str:
    """The list behind a cookie banner."""
    rows = [
        f"{draw.choice(('_ga', '_fbp', 'sid'))}_{draw.randrange(1 << 20):x}\n{draw.choice(PROVIDERS)}\n"
        f"Used to {draw.choice(('distinguish users', 'store the consent', 'deliver advertisements'))}.\n"
        f"Expiry: {draw.choice(['Session', '1 year', '2 years', '90 days'])}\nType: HTTP Cookie"
        for _ in range(draw.randint(20, 60))
    ]
    return "\n".join(["We use cookies.", "Accept all", "Reject all", "Settings", *rows])


def links(draw: Random) -> str:
    """Addresses one below the other."""
    hosts = ("example.org", "news.example.com", "shop.example.net")
    return "\n".join(
        f"https://{draw.choice(hosts)}/{draw.choice(EXTRAS[:6])}/{draw.randrange(10**6)}-{draw.choice(EXTRAS[:6])}.html"
        for _ in range(draw.randint(30, 200))
    )


def misread_bytes(draw: Random) -> str:
    """Text in UTF-8 that was read as another encoding, once or twice."""
    text = "\n".join(draw.choices(FOREIGN, k=draw.randint(10, 40)))
    for _ in range(draw.randint(1, 2)):
        text = text.encode().decode(draw.choice(["latin-1", "cp1252"]), "replace")
    return text


def binary(draw: Random) -> str:
    """A file that is no text, read as if it were."""
    return draw.randbytes(draw.randint(500, 3000)).decode(draw.choice(["latin-1", "utf-8"]), "replace")


def filler(draw: Random) -> str:
    """What a template was delivered with."""
    sentences = [
        " ".join(draw.sample(LOREM, draw.randint(6, 14))).capitalize() for _ in range(draw.randint(10, 60))
    ]
    return "Lorem ipsum dolor sit amet. " + ". ".join(sentences) + "."


def minified(draw: Random) -> str:
    """A program without its white space."""
    names = [f"{draw.choice('abcdefgh')}{draw.randrange(99)}" for _ in range(9)]
    calls = (
        f"function {draw.choice(names)}({draw.choice(names)}){{return {draw.choice(names)}.{draw.choice(names)}}}"
    )
    return ";".join(calls.replace("return", f"var {draw.choice(names)}={n};return") for n in range(300))


def data_in_code(draw: Random) -> str:
    """A table of bytes in a program."""
    rows = (", ".join(f"0x{byte:02x}" for byte in draw.randbytes(12)) for _ in range(draw.randint(40, 300)))
    return f"static const unsigned char image_{draw.randrange(99)}[] = {{\n  " + ",\n  ".join(rows) + "\n};\n"


def generated(draw: Random) -> str:
    """What a tool has written and no one reads."""
    mark = draw.choice(
        ["// Code generated by protoc-gen-go. DO NOT EDIT.", "# This file is generated by a script"]
    )
    rows = [f"field_{n} = {json.dumps({'id': draw.randrange(10**6)})}\n" for n in range(draw.randint(20, 60))]
    return f"{mark}\n{''.join(rows)}"


PROSE = ("web", "prose", "books")
READ = (*PROSE, "reference", "chat", "mild")
ALL = (*READ, "papers", "law", "multilingual", "code")

JUNK: dict[Callable[[Random], str], tuple[str, ...]] = {
    repeated_lines: tuple(name for name in ALL if name != "code"),
    repeated_sentences: ALL,
    symbols: ALL,
    hexadecimal: ALL,
    base64_blobs: ALL,
    numbers: ALL,
    spaced_letters: ALL,
    misread_bytes: ALL,
    binary: ALL,
    links: ALL,
    keywords: ALL,
    filler: tuple(name for name in ALL if name != "code"),
    bullets: (*PROSE, "reference", "multilingual", "papers", "law"),
    teasers: PROSE,
    navigation: PROSE,
    cookies: PROSE,
    minified: ("code", *PROSE),
    data_in_code: ALL,
    generated: ("code",),
}
"""Kind -> the policies that must drop it. What is a list, a table or a menu is junk among articles only, and a
file may begin with words by which only the policy for code knows that nobody wrote it."""
