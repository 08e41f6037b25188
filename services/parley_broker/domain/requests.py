"""What a marketer may ask: a request is checked whole before anything is done for it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from parley_terms.purposes import PURPOSES
from parley_terms.terms import MOST_FIELDS, Channel, Criteria, Field, Form, Level, Terms, each_criterion
from parley_terms.values import Catalogue, ValueInvalid, check_question

LONGEST_DECISION = timedelta(days=92)


class Wrong(StrEnum):
    """What is wrong with a request: an ErrorReason by name."""

    UNSUPPORTED = "NOT_SUPPORTED_YET"
    MALFORMED = "INVALID_REQUEST"
    PURPOSE = "INVALID_CONSENT_PURPOSE"
    DATES = "INVALID_DATE_RANGE"
    ATTRIBUTE = "ATTRIBUTE_UNKNOWN"
    QUESTION = "VALUE_INVALID"
    LEVEL = "VERIFICATION_REQUIRED"


@dataclass(frozen=True, slots=True)
class Objection:
    """One thing wrong: the reason, the proto path, and the next step for a person."""

    wrong: Wrong
    path: str
    says: str


def with_questions(terms: Terms, criteria: Criteria | None) -> Terms:
    """The terms with every question of the criteria among the fields: a criterion is content that must be agreed."""
    asked = [Field(test.attribute, Form.ANSWER, test.question) for test in each_criterion(criteria)] if criteria else []
    return replace(terms, fields=tuple(dict.fromkeys((*terms.fields, *asked))))


def objections(
    terms: Terms, level: Level, catalogue: Catalogue, now: datetime, *, own: int | None = None
) -> Iterator[Objection]:
    """
    Everything wrong with a request's terms (its questions among the fields), the gravest kind first.

    The first ``own`` fields are its content's own, unless all are; what is behind them, its criteria ask.
    """
    for path in terms.unsupported:
        yield Objection(Wrong.UNSUPPORTED, f"terms.{path}", "not enforced yet: leave it out")
    yield from _shape(terms)
    yield from _purposes(terms, level)
    yield from _dates(terms, now)
    for index, field in enumerate(terms.fields):
        is_own = own is None or index < own
        yield from _field(field, f"terms.content.fields[{index}]" if is_own else "audience.criteria", level, catalogue)


def _shape(terms: Terms) -> Iterator[Objection]:
    if not terms.fields:
        yield Objection(Wrong.MALFORMED, "terms.content.fields", "ask for at least one field")
    if len(terms.fields) > MOST_FIELDS:
        yield Objection(Wrong.MALFORMED, "terms.content.fields", f"at most {MOST_FIELDS}, questions included")
    if terms.use is None:
        yield Objection(Wrong.MALFORMED, "terms.content.use", "say how often it is used")
    if Channel.DATA not in terms.channels:
        yield Objection(
            Wrong.UNSUPPORTED, "terms.mode.channels", "an exchange without CHANNEL_DATA is not supported yet"
        )


def _purposes(terms: Terms, level: Level) -> Iterator[Objection]:
    if not terms.purposes or not terms.purposes <= PURPOSES.keys():
        yield Objection(Wrong.PURPOSE, "terms.purposes", "name purposes of the vocabulary in docs/terms.md")
    for purpose in terms.purposes & PURPOSES.keys():
        if level < PURPOSES[purpose].least_level:
            yield Objection(Wrong.LEVEL, "terms.purposes", f"needs level {PURPOSES[purpose].least_level.name}")


def _dates(terms: Terms, now: datetime) -> Iterator[Objection]:
    if terms.validity.start is not None:
        yield Objection(
            Wrong.UNSUPPORTED, "terms.timing.validity.start_time", "a later start is not supported yet: leave it out"
        )
    end, deadline = terms.validity.end, terms.decision_deadline
    if end is None or deadline is None:
        yield Objection(Wrong.DATES, "terms.timing", "say when the validity ends and when offers lapse")
        return
    longest = min((PURPOSES[p].longest for p in terms.purposes & PURPOSES.keys()), default=timedelta.max)
    if not now < end or end - now > longest:
        yield Objection(Wrong.DATES, "terms.timing.validity", f"ends ahead, within {longest.days} days")
    if not now < deadline <= end or deadline - now > LONGEST_DECISION:
        yield Objection(
            Wrong.DATES,
            "terms.timing.decision_deadline",
            f"lies ahead, within {LONGEST_DECISION.days} days, and not behind the end of the validity",
        )


def _field(field: Field, path: str, level: Level, catalogue: Catalogue) -> Iterator[Objection]:
    attribute = catalogue.get(field.attribute)
    if attribute is None:
        yield Objection(
            Wrong.ATTRIBUTE, f"{path}.attribute", f"{field.attribute} is not in the catalogue: see ListAttributes"
        )
        return
    if level < attribute.least_level:
        yield Objection(Wrong.LEVEL, f"{path}.attribute", f"{field.attribute} needs level {attribute.least_level.name}")
    if (field.form is Form.ANSWER) != (field.question is not None):
        yield Objection(Wrong.MALFORMED, f"{path}.question", "goes with FORM_ANSWER, and only with it")
    elif field.question is not None:
        try:
            check_question(attribute, field.question)
        except ValueInvalid as error:
            yield Objection(Wrong.QUESTION, f"{path}.question", str(error))
