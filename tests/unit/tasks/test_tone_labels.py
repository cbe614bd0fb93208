import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.labels.tone import ACRONYMS, IMPERATIVES, MAX_CHARACTERS, TONES, rule_strengths, tone_label

PLAIN = "The old mill stood on the river for a hundred years and was used by the people of the three villages."
PLAIN_TOO = "In the winter the water was low and the wheel was still for days on end."
STORY = (
    f"{PLAIN} {PLAIN_TOO} The miller had two sons with dark hair. They went to the town with the cart on Mondays."
)

QUESTIONS = [
    "Where was the letter that you sent to the office last week? Who read it before the others? "
    "It was on the table in the hall. Was the door of the hall open at that time?",
    "What is the name of the river in the north? How long is it from the spring to the sea? The map is old. "
    "Why was the map not replaced when the new roads were made for the city?",
    'Can the bird fly over that wall of stone and glass? "Perhaps," said the keeper of the garden.\n'
    "Will it be cold in the garden when the sun is down? Is that why the birds are in the shed tonight?",
    "The report was late again and that is the whole of the story for now. Which of the offices was closed? "
    "Does the clerk still have the key to it, or is that with the guard at the gate?",
    "Is it true that the moon has no air? Is it as dry as the rocks of a desert? Are there mountains on it? "
    "The books of the school say that all of this is so, and more.",
]
EXCLAMATIONS = [
    "The boat is here at last! The whole village came down to the shore to see it. What a day it was for them! "
    "The captain waved with his hat to all of the children on the wall.",
    "Never was there such a feast in the house of the baker! There was bread for all and wine for the old. "
    "Then came the dance, and the band of the town played until the morning!",
    "THIS IS THE LAST WARNING for all of the people that have parked in front of the gate of the school. "
    "The cars will be TAKEN AWAY from there on Monday with the help of the police.",
    "The new store is OPEN from the first of May on the corner of the old market. There are GIFTS for the first "
    "hundred people that come to it, and the music is from the band of the school.",
    '"Stop that thief!" was the cry in the street. The man was fast and the bag was heavy with the silver of the '
    'church. "There he is, on the roof of the inn!" said the boy with the dog.',
]
INSTRUCTIONS = [
    "Open the box and take out the parts. Place the board on the table with the holes to the front. "
    "Insert the two long screws at the top. The lamp is now ready for use in the house.",
    "1. Mix the flour with the butter.\n2. Pour the milk over it and wait for an hour.\n3. The dough is now soft "
    "and has to be baked for half an hour on the middle rack of the oven.",
    "Click the button at the top of the page to see the list of the files. The list is sorted by date.\n"
    "Select the file that is needed and drag it to the folder on the left of the window.",
    "Step 1: The cover is held by four clips on the sides of the case.\nStep 2: The fan is under the cover with "
    "the cable on the left. It has to be cleaned with a dry brush.",
    "- Run the installer with the rights of the owner of the machine.\n- Restart the machine for the changes to "
    "be seen by the programs.\n- The log of all that was done is in the folder of the user.",
]
CONVERSATIONS = [
    "I don't know what you heard, but we're not moving to the coast. My sister said that I'd like it there, and "
    "maybe you would too. I can't leave my job and you know it.",
    "Well, you're late again and I'm not happy. I've told you that we eat at six. Your soup is cold, but I can "
    "warm it for you if you'll sit down with me for once.",
    "We've been to that place and it wasn't as good as you said. My fish was dry and I didn't like the wine. "
    "Next time I think we should try yours, the one by the bridge.",
    "That's what I said to him, you see. I won't go with you, I said, and my mother doesn't want me to. He's "
    "angry with me now and I don't know what to do about it.",
    "It’s my first post here so I hope you don’t mind if I ask for help. I can’t get my radio to work and we "
    "leave for the lake on Friday. You’ve all been so kind to me before.",
]
FORMAL = [
    "The implementation of the regulation is subject to the consideration of the department. Notification of the "
    "amendment is given by publication, and the validity of the document is not dependent on that.",
    "Assessment of the performance of the institution is based on the documentation of its activities. The "
    "allocation of the investment was in accordance with the agreement of the government and the commission.",
    "The population of the region is in transition to a condition of stability. Measurement of the variance of "
    "the distribution was made with the application of the approximation that is given in the equation.",
    "In the absence of authorization, the importation of equipment is a violation of the obligations of this "
    "legislation. The determination of liability and of the resistance of an entity to inspection is for courts.",
    "Examination of the composition of the solution is for the identification of contamination. The significance "
    "of the deviation in conductivity was in the preparation and treatment of the specimen for observation.",
]
NEUTRAL = [
    STORY,
    "The town lies on the east bank of the river and has two bridges. The first of them was built of wood in the "
    "year of the flood. A railway came to the place some thirty years later.",
    "The bear is a large animal with thick fur and a short tail. It lives in the forests of the north and feeds "
    "on roots, fish and honey. In the winter it sleeps for months.",
    "On Sunday the team from the harbour won by two goals. The first was scored after ten minutes by the captain. "
    "The game was watched by a crowd of nine thousand that came by train.",
    "Rain is expected over the hills for most of the week. The wind will be light and from the south. It will be "
    "dry along the coast with some sun on the last two days.",
]
POSITIVES = {
    "questioning": QUESTIONS,
    "emphatic": EXCLAMATIONS,
    "instructive": INSTRUCTIONS,
    "conversational": CONVERSATIONS,
    "formal": FORMAL,
    "neutral": NEUTRAL,
}

# Texts that come close to a rule and for which it must not vote.
NEGATIVES = {
    "questioning": [
        STORY,
        f"{STORY} Who was the third?",
        f"{STORY} See https://example.org/page?a=1&b=2 and https://example.org/list?c=3 for the maps.",
        f"{STORY} The sign said (?) and the price was 5?3 or so on the board of the inn.",
        f"{STORY} They asked who was there, and when, and why the wheel had been stopped.",
    ],
    "emphatic": [
        STORY,
        f"{STORY} NASA and UNESCO sent a letter in HTML by HTTP, and IEEE did the same.",
        f"{STORY} The rule is a!=b and not !important in the code of the machine.",
        f"{STORY} {PLAIN_TOO} {PLAIN_TOO} What a winter!",
        f"{STORY} The flags are SOCK_STREAM_OPEN and READ_ONLY_FILE in the header of the program.",
    ],
    "instructive": [
        STORY,
        f"{STORY} Add the salt.",
        f"{STORY} They had to open the gate and to clean the wheel and to remove the ice.",
        f"{STORY} Runs of fish were seen. Setting the nets was hard. Openings in the ice were few.",
        f"{STORY}\n(1) the mill,\n(2) the house and\n(3) the river",
    ],
    "conversational": [
        STORY,
        "I went to the mill with my father and you know what we saw there. My brother was on the wheel and I was "
        "glad to see him. We took you and your dog home with us.",
        "The miller's sons didn't see it and the dog wasn't there. They couldn't have known that the wheel hadn't "
        "been used for so long, and the owner's letter hadn't been sent on that day.",
        "We the people of the US took our boats to the river, and the US sent ours to us on the day of the flood. "
        "The old mill was used for our grain then.",
        f"{STORY} I'm not sure.",
    ],
    "formal": [
        STORY,
        f"{FORMAL[0]} It isn't so.",
        f"{FORMAL[1]} I have seen it.",
        f"{FORMAL[2]} This is for you.",
        "The city had a moment of pity. The nation took a chance at the dance and a glance at the motion. That is "
        "all there is to say of the day on the river with the boats and of the old mill and the two sons.",
    ],
    "neutral": [
        f"{STORY} Who was the third?",
        f"{STORY} What a winter it was!",
        f"{STORY} Add the salt.",
        "The station of the city was closed and the people had no information. In the evening the train went on "
        "to the town by the sea, where the hotel was full and the night was cold.",
        "I think that we had a good day with you on the lake. We couldn't see the bottom of it for my father had "
        "the glasses. The fish were small and the sun was low when the boat came back to the shore of the lake.",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("tone", "text"), [(tone, text) for tone in TONES for text in POSITIVES[tone]])
def test_tone_label_of_a_clear_text_is_its_class(tone: str, text: str) -> None:
    label = tone_label(text)
    assert label is not None, rule_strengths(text)
    assert TONES[label] == tone


@pytest.mark.parametrize(("tone", "text"), [(tone, text) for tone in TONES for text in NEGATIVES[tone]])
def test_tone_label_is_not_given_for_what_only_looks_like_it(tone: str, text: str) -> None:
    strengths = rule_strengths(text)
    assert strengths is not None
    assert strengths.get(tone, 0) < 1  # type: ignore[call-overload]
    assert tone_label(text) != TONES.index(tone)  # type: ignore[arg-type]


def test_tone_rules_abstain_when_two_of_them_vote() -> None:
    text = f"{QUESTIONS[0]} {EXCLAMATIONS[0]} The end came with a bang! It was over!"
    strengths = rule_strengths(text)
    assert strengths is not None
    assert min(strengths["questioning"], strengths["emphatic"]) >= 1
    assert tone_label(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Open the box! Is it here?",
        "?" * 5000,
        "\n" * 5000,
        "1. " * 2000,
        "Әни өйдә җырлый, без урамда уйныйбыз. Син кайда идең? Бүген көн матур, һава җылы! " * 5,
        "Где было письмо, которое вы послали? Кто его читал? " * 5,
        "Wo war der Brief, den Sie geschickt haben? Wer hat ihn gelesen? Der Brief lag auf dem Tisch im Saal. "
        * 3,
        "Où était la lettre de la direction? La présentation de la solution est une obligation de la commission. "
        * 3,
        "敏捷的棕色狐狸跳过了懒狗。" * 20,
        "The function is in the list of the module that you have.\n"
        + "    for x in the_list:\n        yield x;\n" * 9,
        "This is what the program is made of and that is all there is to it.\n" + "int main(void) {\n}\n" * 9,
    ],
    ids=range(12),
)
def test_tone_rules_abstain_from_short_foreign_and_code_like_text(text: str) -> None:
    assert rule_strengths(text) is None
    assert tone_label(text) is None


@given(text=st.text(alphabet="aI'?!. \n\tTHE1)-;", max_size=300), rest=st.text(max_size=20))
def test_tone_label_depends_on_nothing_but_the_beginning(text: str, rest: str) -> None:
    beginning = (f"{STORY}{text} " * 20)[:MAX_CHARACTERS]
    assert len(beginning) == MAX_CHARACTERS
    assert tone_label(beginning + rest) == tone_label(beginning) == tone_label(str(beginning))


def test_tone_lists_are_as_described() -> None:
    assert len(IMPERATIVES) == 120
    assert all(verb.islower() for verb in IMPERATIVES)
    assert all(word.isupper() and len(word) > 3 for word in ACRONYMS)
