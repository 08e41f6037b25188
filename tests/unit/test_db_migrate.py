import pytest

from parley_db.migrate import MigrationChanged, SchemaAhead, parse, pending, read

FILES = {
    "0002_b.post.sql": "SELECT 3;",
    "0001_a.pre.sql": "SELECT 1;",
    "0002_b.pre.sql": "SELECT 2;",
}


def test_files_run_by_version_and_pre_before_post() -> None:
    titles = [migration.title for migration in parse("parley_x", FILES)]
    assert titles == ["parley_x/0001_a.pre", "parley_x/0002_b.pre", "parley_x/0002_b.post"]


@pytest.mark.parametrize("name", ["1_a.pre.sql", "0001_a.sql", "0001_A.pre.sql", "0001_a.pre.sql.bak", "notes.txt"])
def test_a_misnamed_file_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not named"):
        parse("parley_x", {name: "SELECT 1;"})


def test_two_files_of_one_version_and_phase_are_refused() -> None:
    with pytest.raises(ValueError, match="share a version"):
        parse("parley_x", FILES | {"0001_other.pre.sql": "SELECT 4;"})


def test_what_is_applied_is_not_pending() -> None:
    first, second, third = parse("parley_x", FILES)
    applied = {(1, first.phase): first.checksum, (2, second.phase): second.checksum}
    assert [third] == pending([first, second, third], applied)


def test_an_edited_file_is_refused() -> None:
    (first,) = parse("parley_x", {"0001_a.pre.sql": "SELECT 1;"})
    with pytest.raises(MigrationChanged, match=r"parley_x/0001_a\.pre was edited"):
        pending([first], {(1, "pre"): "0" * 64})


def test_a_newer_release_s_pre_files_are_tolerated_and_its_post_files_are_not() -> None:
    files = parse("parley_x", FILES)
    assert files == pending(files, {(3, "pre"): "f"})
    with pytest.raises(SchemaAhead, match=r"0003\.post"):
        pending(files, {(3, "pre"): "f", (3, "post"): "f"})


def test_the_shared_migrations_are_read_from_the_package() -> None:
    assert read("parley_db")[0].title == "parley_db/0001_events.pre"
