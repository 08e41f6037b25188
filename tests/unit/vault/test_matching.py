from collections.abc import Mapping
from threading import Thread

from hypothesis import given, settings
from hypothesis import strategies as st

from parley_terms import terms
from parley_terms.terms import AllOf, AnyOf, Criteria, Level, Not, OneOf, Range
from parley_terms.values import Attribute, ValueType
from parley_vault.domain.matching import Fact, Index, Order, order_of

CATALOGUE = {
    "p.age": Attribute("p.age", "", ValueType.INTEGER),
    "p.since": Attribute("p.since", "", ValueType.DATE),
    "p.job": Attribute("p.job", "", ValueType.CHOICE, choices=("cook", "nurse", "smith")),
    "p.loan": Attribute("p.loan", "", ValueType.BOOLEAN, least_level=Level.VERIFIED),
}
VALUES = {
    "p.age": [str(number) for number in range(-2, 12)],
    "p.since": [f"2020-01-{day:02}" for day in range(1, 10)],
    "p.job": ["cook", "nurse", "smith"],
    "p.loan": ["false", "true"],
}
Population = Mapping[str, Mapping[str, Fact]]

facts = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(Fact, st.sampled_from(values), st.sampled_from(Level)) for name, values in VALUES.items()
    },
)
populations = st.dictionaries(st.sampled_from("abcdefghij"), facts)
choices = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: st.builds(
        terms.Criterion,
        st.just(name),
        st.lists(st.sampled_from(VALUES[name]), min_size=1, unique=True).map(lambda some: OneOf(tuple(sorted(some)))),
    )
)
number, day = st.none() | st.sampled_from(VALUES["p.age"]), st.none() | st.sampled_from(VALUES["p.since"])
ranges = st.builds(terms.Criterion, st.just("p.age"), st.builds(Range, number, number)) | st.builds(
    terms.Criterion, st.just("p.since"), st.builds(Range, day, day)
)
criteria = st.recursive(
    choices | ranges,
    lambda inner: (
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=6,
)


def index_of(population: Population) -> Index:
    index = Index(CATALOGUE)
    for subject, found in population.items():
        index.add(subject, found)
    return index


def backwards(subject: str) -> bytes:
    """An order that isn't the subjects' own."""
    return bytes([255 - ord(subject)])


def sorted_order(index: Index, asked: Criteria, level: Level) -> Order:
    order = Order(index, asked, level, backwards)
    order.make()
    return order


def seen(person: Mapping[str, Fact], level: Level) -> dict[str, str]:
    """What a marketer of this level may know of a person: said in another way than the index says it."""
    return {
        name: fact.value
        for name, fact in person.items()
        if fact.level <= level and (name != "p.loan" or level >= Level.VERIFIED)
    }


def holds(asked: Criteria, person: dict[str, str]) -> bool:
    if isinstance(asked, AllOf):
        return all(holds(part, person) for part in asked.criteria)
    if isinstance(asked, AnyOf):
        return any(holds(part, person) for part in asked.criteria)
    if isinstance(asked, Not):
        return all(test.attribute in person for test in terms.each_criterion(asked)) and not holds(
            asked.criteria, person
        )
    return asked.attribute in person and meets(asked, person[asked.attribute])


def meets(test: terms.Criterion, value: str) -> bool:
    if isinstance(test.question, OneOf):
        return value in test.question.values
    number = float if test.attribute == "p.age" else str
    least, most = test.question.min, test.question.max
    return (least is None or number(least) <= number(value)) and (most is None or number(value) <= number(most))  # type: ignore[operator]


@settings(deadline=None)
@given(populations, criteria, st.sampled_from(Level))
def test_index_finds_whom_the_slow_oracle_finds(population: Population, asked: Criteria, level: Level) -> None:
    expected = {subject for subject, person in population.items() if holds(asked, seen(person, level))}

    assert expected == index_of(population).find(asked, level)


@settings(deadline=None)
@given(populations, populations, criteria, st.sampled_from(Level))
def test_changed_index_is_as_one_built_anew(
    before: Population, after: Population, asked: Criteria, level: Level
) -> None:
    index = index_of(before)
    for subject in {*before, *after}:
        index.forget(subject)
        index.add(subject, after.get(subject, {}))

    assert index_of(after).find(asked, level) == index.find(asked, level)


@settings(deadline=None)
@given(populations, criteria, st.sampled_from(Level))
def test_whoever_meets_criteria_is_found_and_nobody_else(population: Population, asked: Criteria, level: Level) -> None:
    index = index_of(population)

    assert index.find(asked, level) == {subject for subject in "abcdefghijk" if index.meets(subject, asked, level)}


@settings(deadline=None)
@given(populations, criteria)
def test_finding_changes_nothing(population: Population, asked: Criteria) -> None:
    index = index_of(population)
    first = index.find(asked, Level.ACCREDITED)
    expected = set(first)
    first.clear()

    assert expected == index.find(asked, Level.ACCREDITED)


@settings(deadline=None)
@given(populations, st.lists(populations, max_size=3), criteria, st.sampled_from(Level), st.sampled_from("ahz"))
def test_order_that_was_kept_in_step_is_as_one_made_anew(
    before: Population, changes: list[Population], asked: Criteria, level: Level, after: str
) -> None:
    index = index_of(before)
    order = sorted_order(index, asked, level)
    for change in changes:
        for subject, found in change.items():
            index.forget(subject)
            index.add(subject, found)
        expected = sorted(index.find(asked, level), key=backwards)

        assert expected == order.behind(b"", 100)
        assert [each for each in expected if backwards(each) > backwards(after)][:2] == order.behind(
            backwards(after), 2
        )
        assert len(expected) == len(order)


def test_order_that_nothing_happens_to_looks_for_nobody_again() -> None:
    index, asked = index_of({"a": {"p.age": Fact("3", Level.UNVERIFIED)}}), terms.Criterion("p.age", OneOf(("3",)))
    order = sorted_order(index, asked, Level.UNVERIFIED)
    index.find = None  # type: ignore[method-assign,assignment] # so that whoever looks again fails

    assert ["a"] == order.behind(b"", 1)


def test_order_is_far_behind_once_many_have_changed() -> None:
    index, asked = index_of({}), terms.Criterion("p.age", OneOf(("3",)))
    order = sorted_order(index, asked, Level.UNVERIFIED)
    for number in range(64):
        index.forget(chr(number))

    assert not order.is_far_behind()
    index.forget(chr(64))
    assert order.is_far_behind()
    order.behind(b"", 1)
    assert not order.is_far_behind()


def test_nobody_tells_an_order_that_is_gone() -> None:
    index = index_of({})
    order = sorted_order(index, terms.Criterion("p.age", OneOf(("3",))), Level.UNVERIFIED)
    assert [order] == list(index._orders)

    del order
    assert [] == list(index._orders)


def test_attribute_that_left_the_catalogue_is_left_out() -> None:
    index = index_of({"a": {"gone.attribute": Fact("x", Level.UNVERIFIED), "p.age": Fact("3", Level.UNVERIFIED)}})

    assert {"a"} == index.find(terms.Criterion("p.age", Range("3", "3")), Level.UNVERIFIED)


def test_order_depends_on_key_exchange_and_subject() -> None:
    places = {
        order_of(key, exchange, subject) for key in (b"k" * 32, b"l" * 32) for exchange in "xy" for subject in "ab"
    }

    assert len(places) == 8
    assert order_of(b"k" * 32, "x", "a") == order_of(b"k" * 32, "x", "a")


OLD_ENOUGH = AllOf((terms.Criterion("p.age", Range("3", None)), Not(terms.Criterion("p.job", OneOf(("cook",))))))


def some_facts(number: int) -> dict[str, Fact]:
    values = {"p.age": VALUES["p.age"][number % 14], "p.job": VALUES["p.job"][number % 3]}
    return {name: Fact(value, Level.UNVERIFIED) for name, value in values.items()}


def named(number: int) -> bytes:
    return number.to_bytes(4)


def test_order_made_in_a_thread_holds_who_changed_meanwhile() -> None:
    index, crowd = Index(CATALOGUE), 20_000
    for number in range(crowd):
        index.add(str(number), some_facts(number))
    order = Order(index, OLD_ENOUGH, Level.UNVERIFIED, lambda subject: named(int(subject)))
    making = Thread(target=order.make)
    making.start()
    changed = 0
    while making.is_alive():
        index.forget(str(changed % crowd))
        index.add(str(changed % crowd), some_facts(changed + 1))
        changed += 1
    making.join()
    assert order.is_far_behind()

    while order.is_far_behind():
        for subject in order.changed():
            order.renew(subject)

    found = index.find(OLD_ENOUGH, Level.UNVERIFIED)
    assert sorted(found, key=int) == order.behind(b"", crowd)


def test_order_that_is_served_hears_of_no_more_than_it_can_use() -> None:
    index = Index(CATALOGUE)
    order = sorted_order(index, OLD_ENOUGH, Level.UNVERIFIED)
    for number in range(100):  # while it is made, none may be missed
        index.forget(str(number))
    assert 100 == len(order.changed())

    order.behind(b"", 1)
    for number in range(100):
        index.forget(str(number))

    assert order.is_far_behind()
    assert 65 == len(order.changed())
