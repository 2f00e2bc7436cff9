"""Refusals: what models say when they do not answer. Rule for `guards.refusal`.

A caption may speak of anybody's words ("a sign that reads 'Sorry, we are closed'"): what stands in quotes is not looked
at, and an apology counts only where a text begins with it.
"""

import re

QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|(?<!\w)'[^']*'(?!\w)")
NOT = r"(?:(?:can|could|do|may|must|will|would)(?:\s?not|n't)|won't|unable to|not (?:able|allowed|permitted) to)"
CANNOT = r"(?:cannot|can't|could not|couldn't)"
DO = (
    r"(?:see|view|describe|caption|identify|determine|assist|help|provide|process|access|analy[sz]e|generate|comply|"
    r"fulfil\w*|create|answer|recogni[sz]e|tell|make out|display|discuss|write|open|interpret|comment)"
)
DONE = r"(?:described|displayed|processed|loaded|opened|fulfilled|determined|identified|provided)"
IMAGE = r"(?:image|picture|photo\w*|content|request|scene|file|attachment)s?"
GIVEN = r"(?:provided|attached|uploaded|included|given|shared|visible to me|available)"
SEND = r"(?:re-?)?(?:provide|upload|share|attach|send)"
RULES = r"(?:guidelines|(?:\w+ )?polic\w+|programming|terms)"

ENGLISH = (
    r"^\W*(?:i'm|i am|we're|we are) (?:(?:so|very|really|truly|terribly|deeply) )?(?:sorry|afraid)\b",
    r"^\W*(?:sorry|(?:my )?apologies|unfortunately)\b\W*(?:but|,|i\b|we\b|the image|this image|there is no|no\b)",
    r"\b(?:i|we) apologi[sz]e\b",
    rf"\b(?:i|i'm|i am|we) {NOT}\b",
    r"\b(?:i|i'm|we) (?:am )?(?:not comfortable|refuse to|decline to|must decline|have to decline)\b",
    rf"\b(?:unable|not able|not possible|impossible) (?:for me )?to {DO}\b.{{0,40}}\b{IMAGE}\b",
    rf"\b{CANNOT} (?:be {DONE}|{DO})\b.{{0,40}}\b{IMAGE}\b",
    rf"\b{IMAGE} {CANNOT} be {DONE}\b",
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|assistant|text-based)\b",
    r"\b(?:i'm|i am) (?:(?:just|only) )?an? (?:ai|language model|virtual|text-based)\b",
    rf"\b(?:no|any) {IMAGE} (?:(?:was|were|is|has been|have been|seems? to be|appears? to be) )?{GIVEN}\b",
    rf"\b(?:please|could you|can you|kindly)\b.{{0,30}}\b{SEND}\b.{{0,40}}\b{IMAGE}\b",
    rf"\bplease\b.{{0,30}}\b{SEND} (?:it|more|further|additional|the|your)\b",
    rf"\b(?:don't|do not|didn't|did not) (?:see|have|receive|find) (?:access to )?(?:an?|any|the|your) {IMAGE}\b",
    rf"\b(?:violates?|(?:goes )?against|not in line with) (?:my|our|the|its) {RULES}",
    r"\b(?:content|usage|safety) polic(?:y|ies)\b",
    r"\bi'd be happy to help\b|\bhow (?:can|may) i (?:help|assist) you\b|\blet me know if you\b",
)
OTHERS = (
    r"^\W*(?:es )?tut mir leid|^\W*entschuldigung|\bals (?:ki|sprachmodell)\b",
    r"\bich kann (?:das|dieses) bild\b.*\bnicht\b",
    r"^\W*(?:je suis|nous sommes) (?:vraiment )?désolée?s?|^\W*désolée?\b|\ben tant qu'(?:ia|assistant)\b",
    r"\bje ne peux pas\b",
    r"^\W*(?:lo siento|lo lamento|perdón|disculp\w+)\b|\bcomo (?:una )?(?:ia|modelo de lenguaje)\b",
    r"\bno puedo (?:ver|describir|ayudar)\w*\b",
    r"^\W*(?:desculp\w+|lamento|sinto muito)\b|\bnão (?:posso|consigo) (?:ver|descrever|ajudar)\b",
    r"^\W*mi (?:dispiace|scuso)\b|\bnon (?:posso|riesco a) (?:vedere|descrivere|aiutar\w+)\b",
    r"^\W*(?:извините|простите|к сожалению)\b|\bя не могу\b",
    r"^\W*(?:对不起|很?抱歉|對不起)|作为(?:一个)?(?:ai|人工智能)|我无法",
    r"^\W*(?:申し訳|すみません)|できません。?$|^\W*죄송합니다",
)
"""The same in languages that captions are often asked for in."""
REFUSALS = re.compile("|".join((*ENGLISH, *OTHERS)), re.IGNORECASE)


def refusal_in(text: str) -> str | None:
    """The words that decline, as a reason; None where none do."""
    plain = text.strip().replace("’", "'").replace("‘", "'")
    found = REFUSALS.search(QUOTED.sub("''", plain))
    return f"says {found[0].strip()!r}" if found else None
