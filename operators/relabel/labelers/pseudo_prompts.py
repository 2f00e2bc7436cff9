"""Pseudo-label prompts: what a model is asked where a recipe gives no prompt of its own."""

from typing import Literal

How = Literal["score", "choose", "json"]
Options = Literal["labels", "letters"]

PLAIN = "Topics: {{ labels }}.\n\nText: {{ text }}\nTopic:"
"""What a model goes on with; no chat."""
LETTERS = "Text: {{ text }}\n\n{{ options }}\nThe letter of the topic that fits the text best:"
BEST = "Which of these topics fits the text best?\n{{ definitions }}\n\nText: {{ text }}\n\n"
ALL = "Which of these topics does the text have?\n{{ definitions }}\n\nText: {{ text }}\n\n"
CHOOSE = BEST + "Answer with its name alone."
CHOOSE_SEVERAL = ALL + "Answer with their names alone, with ; between them."
JSON = BEST + (
    'Answer with JSON alone: {"label": "NAME"}.{% if other %} If none fits: {"label": "{{ other }}"}.{% endif %}'
)
JSON_SEVERAL = ALL + (
    'Answer with JSON alone: {"labels": ["NAME", ...]}.'
    '{% if other %} If it has none: {"labels": ["{{ other }}"]}.{% endif %}'
)


def default_prompt(how: How, options: Options, several: bool) -> str:
    if how == "score":
        return PLAIN if options == "labels" else LETTERS
    if how == "choose":
        return CHOOSE_SEVERAL if several else CHOOSE
    return JSON_SEVERAL if several else JSON
