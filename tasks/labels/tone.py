"""Tone labels: how a text is written, in six classes, by rules that abstain when in doubt.

Text has no sound, so what is meant is written tone. Five rules for English look at the beginning of a text; each
has a strength, 1 where it speaks for its class:

questioning     30 % of the sentences end in a question mark
emphatic        15 % end in an exclamation mark, or 3 % of the words are in capitals and no acronyms
instructive     25 % begin with a verb of IMPERATIVES or are numbered steps
conversational  2 contractions and 6 pronouns of the 1st and 2nd person per 100 words
formal          6 nominalisations per 100 words, no contraction, neither "I" nor "you"

One strong rule gives the label; `neutral` is a text of which every rule has less than half its strength. Anything
between, two strong rules, code, a few words and other languages get none. The labels are weak: a head that agrees
with them has learned the rules, which says nothing of a human reader's judgement.
"""

import re
from collections import Counter
from typing import Literal, get_args

Tone = Literal["neutral", "questioning", "emphatic", "instructive", "conversational", "formal"]

TONES: tuple[Tone, ...] = get_args(Tone)
"""The classes of the tone head, in the order of their numbers."""

MAX_CHARACTERS = 4000
"""Beginning of a text that decides, about two pages."""

_VERBS = """
add adjust allow apply ask assign attach avoid bake begin bring build call cancel change check choose clean clear
click close combine compare compile complete configure confirm connect consider convert copy create cut define
delete deploy describe determine disable download drag draw drop edit enable enter ensure execute exit export
extract fill find fix follow generate give go identify import include insert install join keep launch leave let
list load log look make measure modify mount move name navigate note open paste perform pick place plug pour
prepare press print pull push put read refer remember remove rename repeat replace restart return review run save
search select send set start stir stop take turn type update use verify wait write
"""
_CAPITALS = """
AIDS ANSI ASCII ASEAN BIOS CDMA CERN CMOS CORS CRUD DARPA DHCP EEPROM EPROM FIFA FIFO FORTRAN GDPR GNOME GUID
HDMI HIPAA HTML HTTP HTTPS IBAN ICANN IEEE IETF IMAP INTERPOL IPCC ISBN ISSN JPEG JSON LASER LDAP LIFO LINUX LLVM
MIME MIPS MOSFET MPEG NAFTA NASA NATO NIST NOAA NTFS OAUTH OECD OPEC OSHA PCIE POSIX RADAR RAID REST RFID RISC
SAML SCSI SIMD SMTP SNMP SOAP SONAR SWAT UCLA UEFA UNESCO UNHCR UNICEF UNIX USAID USDA USPTO UUID VLAN VLSI VOIP
WASM WLAN WSGI XHTML YAML NULL TRUE FALSE TODO FIXME SELECT FROM WHERE INSERT UPDATE DELETE TABLE MUST SHALL
SHOULD REQUIRED RECOMMENDED OPTIONAL
"""
_COMMONEST = "the of and to that is for with it you was this are on be not as have i at"
_FIRST_AND_SECOND = "i me my mine myself you your yours yourself yourselves"
_FIRST_PLURAL = "we us our ours ourselves"

IMPERATIVES = frozenset(_VERBS.split())
"""120 verbs that a sentence of an instruction begins with."""
ACRONYMS = frozenset(_CAPITALS.split())
"""Words in capitals that are not loud: acronyms, constants, SQL, and the terms of RFC 2119."""

_ENGLISH = frozenset(_COMMONEST.split())
_DIALOGUE = frozenset(_FIRST_AND_SECOND.split())
_PERSON = _DIALOGUE | frozenset(_FIRST_PLURAL.split())

_SENTENCE = re.compile(
    r"(?P<step>^[ \t]*(?:step[ \t]+\d{1,2}[.):]?|\d{1,2}[.)])[ \t]+)?"
    r"(?P<body>(?:[^.!?\n]|[.!?](?![.!?]{0,3}(?:[\s\"'”)\]*_]|\Z)))+)"
    r"(?P<end>[.!?]*)",
    re.IGNORECASE | re.MULTILINE,
)
"""A mark inside a number, a file name or an address ends no sentence: a space or a closing mark must follow."""

_WORD = re.compile(r"\b[^\W\d_]+(?:'[^\W\d_]+)*\b")
_CONTRACTION = re.compile(r"\w+n't|\w+'(?:re|ve|ll|d|m)|(?:it|that|what|let|he|she|there|here|who|how|where)'s")
_NOMINALISATION = re.compile(r"\w{3,}(?:tions?|ments?|it(?:y|ies)|ances?)")
_CODE_LINE = re.compile(r"^(?: {4}|\t).*\S|^.*[;{}][ \t]*$", re.MULTILINE)
_LINE = re.compile(r"^.*\S", re.MULTILINE)

MIN_WORDS = 30
"""Of fewer words a rate says nothing: one in capitals would make the text emphatic."""
CODE_LINES = 0.2
"""Share of lines that begin like code or end like it, from which a text counts as code."""
ASCII_WORDS = 0.8
"""Share of words that must be plain Latin letters in an English text."""
ENGLISH_WORDS = 0.08
"""Share of words that must be among the commonest of English; ordinary prose has 20 to 35 %."""


def tone_label(text: str) -> int | None:
    """Return the number of a text's tone in TONES, or None where the rules abstain."""
    strengths = rule_strengths(text)
    if strengths is None:
        return None
    voted = [tone for tone, strength in strengths.items() if strength >= 1]
    if len(voted) == 1:
        return TONES.index(voted[0])
    return TONES.index("neutral") if max(strengths.values()) < 0.5 else None


def rule_strengths(text: str) -> dict[Tone, float] | None:
    """Return how strongly each rule speaks, 1 where it votes for its class.

    None for code, for other languages and for a few words.
    """
    text = text[:MAX_CHARACTERS].replace("\u2019", "'")
    words = Counter(_WORD.findall(text))
    total = words.total()
    if total < MIN_WORDS or not _is_english(words, total) or _is_code(text):
        return None
    loud = contractions = persons = dialogue = nominalisations = 0
    for word, count in words.items():
        lower = word.lower()
        person = lower.partition("'")[0]
        loud += count * (len(word) > 3 and word.isupper() and word not in ACRONYMS)
        contractions += count * ("'" in word and _CONTRACTION.fullmatch(lower) is not None)
        persons += count * (person in _PERSON and word != "US")
        dialogue += count * (person in _DIALOGUE)
        nominalisations += count * (_NOMINALISATION.fullmatch(lower) is not None)
    questions, exclamations, instructions = _sentence_rates(text)
    per_100 = 100 / total
    return {
        "questioning": questions / 0.30,
        "emphatic": max(exclamations / 0.15, per_100 * loud / 3),
        "instructive": instructions / 0.25,
        "conversational": per_100 * min(contractions / 2, persons / 6),
        "formal": 0.0 if contractions or dialogue else per_100 * nominalisations / 6,
    }


def _is_english(words: Counter[str], total: int) -> bool:
    plain = sum(count for word, count in words.items() if word.isascii())
    common = sum(count for word, count in words.items() if word.lower() in _ENGLISH)
    return plain >= ASCII_WORDS * total and common >= ENGLISH_WORDS * total


def _is_code(text: str) -> bool:
    return len(_CODE_LINE.findall(text)) >= CODE_LINES * len(_LINE.findall(text))


def _sentence_rates(text: str) -> tuple[float, float, float]:
    """Return the shares of sentences that ask, that exclaim and that instruct; the text has a word."""
    sentences = questions = exclamations = instructions = 0
    for sentence in _SENTENCE.finditer(text):
        first = _WORD.search(sentence["body"])
        if first is None:
            continue
        sentences += 1
        questions += "?" in sentence["end"]
        exclamations += "!" in sentence["end"]
        instructions += sentence["step"] is not None or first[0].lower() in IMPERATIVES
    return questions / sentences, exclamations / sentences, instructions / sentences
