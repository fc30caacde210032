"""From what a PRISM participant reported to a profile in words: what is absent stays absent.

It reads no file, and neither infers nor fills in anything. ``order_stated_prefs`` is the order in
which sliders were shown, says nothing of the person, and is not read.
"""

from collections.abc import Mapping
from typing import Any

from prompts.catalog import load_template

# Answers that decline to answer tell nothing, like a null.
DECLINED = frozenset({"", "prefer not to say", "empty string", "null", "nan", "none"})

# Our words for PRISM's sliders. A slider's value is kept as it is: 0 is an answer too.
PREFERENCES = {
    "values": "in keeping with the person's values and culture",
    "creativity": "creative and inspiring",
    "fluency": "well written and easy to follow",
    "factuality": "factual and informative",
    "diversity": "showing several points of view",
    "safety": "safe, without risk of harm",
    "personalisation": "suited to the person, learning from earlier talk",
    "helpfulness": "relevant and helpful",
}
USE_CASES = {
    "homework_assistance": "help with school or university work",
    "research": "checking facts and getting an overview of a topic",
    "source_suggestions": "finding sources and things to read",
    "professional_work": "drafting, editing and ideas for work",
    "creative_writing": "stories, poems and other creative writing",
    "casual_conversation": "small talk",
    "personal_recommendations": "recommendations of things to try or buy",
    "daily_productivity": "lists, plans and reminders",
    "technical_or_programming_help": "programming and technical problems",
    "travel_guidance": "planning trips",
    "lifestyle_and_hobbies": "hobbies and everyday life",
    "well-being_guidance": "well-being and exercise",
    "medical_guidance": "questions about health",
    "financial_guidance": "money matters",
    "games": "games and play",
    "historical_or_news_insight": "history and current affairs",
    "relationship_advice": "advice on relationships",
    "language_learning": "learning a language",
}
DEMOGRAPHICS = {
    "age": "age",
    "gender": "gender",
    "employment_status": "work",
    "education": "education",
    "marital_status": "marital status",
    "english_proficiency": "English",
}
# PRISM gives these as told, sorted into groups, and in fewer groups; the person's words win.
GROUPED = {"religion": "religion", "ethnicity": "ethnicity"}
GROUPINGS = ("self_described", "categorised", "simplified")
PLACES = {"birth_country": "born in", "reside_country": "lives in"}


def prism_profile(survey: Mapping[str, Any], template: str = "profile_prism") -> str | None:
    """The profile of one participant, or None if the survey row tells nothing of the person.

    ``system_string``, the person's own instructions to a model, is not part of it.

    Args:
        survey: One row of ``survey.jsonl``; fields may be null or absent.
        template: Name of the template.

    Raises:
        PromptError: The template is unknown or has other slots.
    """
    slots = {
        "familiarity": _told(survey.get("lm_familiarity")),
        "use": _use(survey),
        "use_cases": _use_cases(survey.get("lm_usecases")),
        "preferences": _preferences(survey.get("stated_prefs")),
        "description": _told(survey.get("self_description")),
        "demographics": _demographics(survey),
    }
    if not any(slots.values()):
        return None
    return load_template(template).render(**slots)[-1]["content"]


def prism_system_text(survey: Mapping[str, Any]) -> str | None:
    """The instructions the person would give a model, or None."""
    return _told(survey.get("system_string")) or None


def _told(value: object) -> str:
    """A text answer, stripped; blank where there is none."""
    if not isinstance(value, str):
        return ""
    text = value.strip()
    return "" if text.lower() in DECLINED else text


def _use(survey: Mapping[str, Any]) -> str:
    asked = {
        "lm_direct_use": "has talked to one directly",
        "lm_indirect_use": "has met one inside another product",
        "lm_frequency_use": "how often",
    }
    told = {label: _told(survey.get(name)) for name, label in asked.items()}
    return "\n".join(f"- {label}: {answer}" for label, answer in told.items() if answer)


def _use_cases(cases: object) -> str:
    if not isinstance(cases, Mapping):
        return ""
    told = [
        USE_CASES.get(name, name.replace("_", " "))
        for name in sorted(cases)
        if name not in ("other", "other_text") and cases[name] is True
    ]
    other = _told(cases.get("other_text"))
    return "; ".join([*told, other] if other else told)


def _preferences(stated: object) -> str:
    if not isinstance(stated, Mapping):
        return ""
    told = [(label, stated.get(name)) for name, label in PREFERENCES.items()]
    other = _told(stated.get("other_text"))
    if other:
        told.append((other, stated.get("other")))
    lines = [f"- {label}: {_number(value)}" for label, value in told if _is_number(value)]
    return "\n".join(lines)


def _is_number(value: object) -> bool:
    # A bool is an int to Python; not-a-number is unequal to itself.
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _number(value: object) -> str:
    return f"{value:g}"


def _demographics(survey: Mapping[str, Any]) -> str:
    told = [(label, _told(survey.get(name))) for name, label in DEMOGRAPHICS.items()]
    for name, label in GROUPED.items():
        told.append((label, _first_told(survey.get(name))))
    location = survey.get("location")
    if isinstance(location, Mapping):
        told += [(label, _told(location.get(name))) for name, label in PLACES.items()]
    return "\n".join(f"- {label}: {answer}" for label, answer in told if answer)


def _first_told(groups: object) -> str:
    """The first of the groupings that is there; a refusal to answer is not replaced by another."""
    if not isinstance(groups, Mapping):
        return ""
    given = (groups.get(name) for name in GROUPINGS)
    return _told(next((one for one in given if isinstance(one, str) and one.strip()), None))
