"""Questions as JSON says them: in artefacts, in releases and in what audit logs, everybody writes and reads the same."""

from collections.abc import Mapping
from typing import Any

from parley_terms.terms import OneOf, Question, Range


def question_claims(question: Question) -> dict[str, Any]:
    """Write a question: ``{"one_of": [...]}``, or those of ``min`` and ``max`` that it has."""
    match question:
        case OneOf(values):
            return {"one_of": list(values)}
        case Range(least, most):
            return {name: bound for name, bound in (("min", least), ("max", most)) if bound is not None}


def question_of(claims: Mapping[str, Any]) -> Question:
    """Read a question."""
    return OneOf(tuple(claims["one_of"])) if "one_of" in claims else Range(claims.get("min"), claims.get("max"))
