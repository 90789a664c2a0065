"""People, sessions, one-time links, tokens and the audit log: what may happen once happens once, on every store."""

from __future__ import annotations

import asyncio

import pytest

from postbackd.core.people import (
    DAY_MS,
    IDLE_MS,
    AuditEntry,
    Purpose,
    Role,
    Token,
    User,
    code_of,
    hash_secret,
)
from postbackd.store.base import CatalogConflict
from postbackd.store.people import CodeSpent, People
from tests.store.contract import Kind, World


def people_of(world: World) -> People:
    return world.store.people


def welcome(world: World, name: str, purpose: Purpose = Purpose.WELCOME, role: Role = Role.OWNER) -> User:
    """Somebody who followed a link."""
    people, secret = people_of(world), f"secret of {name}"
    world.run(people.add_code(code_of(secret, purpose, role, "", "the test", world.now_ms)))
    return world.run(people.follow_code(hash_secret(secret), name, "hash", world.now_ms))


def test_a_link_opens_once_and_only_in_its_time(world: World) -> None:
    people = people_of(world)
    assert not world.run(people.has_users())
    anna = welcome(world, "anna")
    assert (anna.name, anna.role) == ("anna", Role.OWNER)
    for secret in ("secret of anna", "another"):
        with pytest.raises(CodeSpent):
            world.run(people.follow_code(hash_secret(secret), "eve", "hash", world.now_ms))
    world.run(people.add_code(code_of("late", Purpose.INVITE, Role.VIEWER, "", "anna", world.now_ms)))
    with pytest.raises(CodeSpent):
        world.run(people.follow_code(hash_secret("late"), "eve", "hash", world.now_ms + 3 * DAY_MS))
    assert [user.name for user in world.run(people.list_users())] == ["anna"]


def test_a_link_that_is_followed_twice_at_once_lets_one_in(world: World, kind: Kind) -> None:
    async def follow_twice() -> list[object]:
        other = await kind.open(world.directory)
        try:
            return await asyncio.gather(
                *(
                    one.people.follow_code(hash_secret("once"), name, "hash", world.now_ms)
                    for one, name in ((world.store, "anna"), (other, "eve"))
                ),
                return_exceptions=True,
            )
        finally:
            await other.close()

    people = people_of(world)
    world.run(people.add_code(code_of("once", Purpose.WELCOME, Role.OWNER, "", "the test", world.now_ms)))
    results = world.run(follow_twice())
    assert sorted(type(result).__name__ for result in results) == ["CodeSpent", "User"]
    assert len(world.run(people.list_users())) == 1


def test_a_name_that_is_taken_leaves_the_link_as_it_was(world: World) -> None:
    welcome(world, "anna")
    with pytest.raises(CatalogConflict, match="choose another name"):
        welcome(world, "anna", Purpose.INVITE, Role.VIEWER)
    people = people_of(world)
    user = world.run(people.follow_code(hash_secret("secret of anna"), "ben", "hash", world.now_ms))
    assert (user.name, user.role) == ("ben", Role.VIEWER)


def test_the_last_owner_stays_one(world: World) -> None:
    people, anna = people_of(world), welcome(world, "anna")
    ben = welcome(world, "ben", Purpose.INVITE, Role.OPERATOR)
    for change in (people.remove_user(anna), people.set_role(anna, Role.VIEWER)):
        with pytest.raises(CatalogConflict, match="only owner"):
            world.run(change)
    world.run(people.set_role(ben, Role.OWNER))
    world.run(people.remove_user(anna))
    assert [user.role for user in world.run(people.list_users())] == [Role.OWNER]


def test_a_session_ends_with_its_replacement_its_role_its_password_and_its_user(world: World) -> None:
    people, anna = people_of(world), welcome(world, "anna")
    ben = welcome(world, "ben", Purpose.INVITE, Role.OPERATOR)

    def is_open(hash_: str) -> bool:
        return world.run(people.find_session(hash_)) is not None

    def begin(user: User, hash_: str, instead_of: str = "") -> None:
        world.run(people.open_session(user, hash_, "192.0.2", world.now_ms, instead_of=instead_of))

    begin(ben, "1")
    begin(ben, "2", instead_of="1")
    assert (is_open("1"), is_open("2")) == (False, True)
    world.run(people.set_role(ben, Role.VIEWER))
    assert not is_open("2")
    begin(ben, "3")
    begin(ben, "4")
    world.run(people.set_password(ben, "another", but="4"))
    assert (is_open("3"), is_open("4")) == (False, True)
    world.run(people.remove_user(ben))
    assert not is_open("4")
    found = world.run(people.load_user(anna.id))
    assert found is not None
    begin(anna, "5")
    world.run(people.tidy(world.now_ms + IDLE_MS + 1))
    assert not is_open("5")


def test_a_code_is_taken_once_and_no_older_one_behind_it(world: World) -> None:
    people, anna = people_of(world), welcome(world, "anna")
    assert world.run(people.take_step(anna, 100))
    assert not world.run(people.take_step(anna, 100))
    assert not world.run(people.take_step(anna, 99))
    assert world.run(people.take_step(anna, 101))


def test_a_token_has_never_more_than_whoever_made_it_and_goes_with_them(world: World) -> None:
    people = people_of(world)
    welcome(world, "anna")
    ben = welcome(world, "ben", Purpose.INVITE, Role.OWNER)
    token = Token(name="ci", hash="h", scopes=("read", "catalog"), user_id=ben.id, made_ms=1, expires_ms=None)
    number = world.run(people.add_token(token))
    with pytest.raises(CatalogConflict, match="choose another name"):
        world.run(people.add_token(token))
    world.run(people.use_token(number, 7))
    found = world.run(people.find_token("h"))
    assert found is not None
    assert (found.allowed, found.used_ms, found.user_name) == (("read", "catalog"), 7, "ben")
    world.run(people.set_role(ben, Role.VIEWER))
    found = world.run(people.find_token("h"))
    assert found is not None
    assert found.allowed == ("read",)
    world.run(people.remove_user(ben))
    assert world.run(people.find_token("h")) is None


def test_links_go_with_the_right_to_make_them(world: World) -> None:
    people, anna = people_of(world), welcome(world, "anna")
    ben = welcome(world, "ben", Purpose.INVITE, Role.OWNER)

    def is_there(secret: str) -> bool:
        return world.run(people.find_code(hash_secret(secret), world.now_ms)) is not None

    def make(secret: str, purpose: Purpose, name: str, by: str) -> None:
        world.run(people.add_code(code_of(secret, purpose, Role.OWNER, name, by, world.now_ms)))

    make("a way back", Purpose.INVITE, "", "ben")
    make("into anna's account", Purpose.RESET, "anna", "ben")
    make("of anna", Purpose.INVITE, "carl", "anna")
    world.run(people.set_role(ben, Role.VIEWER))
    assert [is_there(one) for one in ("a way back", "into anna's account", "of anna")] == [False, False, True]
    make("a way back", Purpose.INVITE, "", "ben")
    world.run(people.remove_user(ben))
    assert not is_there("a way back")
    make("forgotten", Purpose.RESET, "anna", "anna")
    world.run(people.set_password(anna, "remembered", but=""))
    assert not is_there("forgotten")


def test_the_audit_log_is_read_in_pages_and_forgets_what_is_old(world: World) -> None:
    people = people_of(world)
    lines = [
        AuditEntry(
            at_ms=world.now_ms + number, who="anna", kind="session", action=f"a{number}", fields=("x",)
        )
        for number in range(5)
    ]
    world.run(people.note(*lines))
    first = world.run(people.list_audit(1 << 62, 3))
    second = world.run(people.list_audit(first[-1].id, 3))
    assert [line.action for line in (*first, *second)] == ["a4", "a3", "a2", "a1", "a0"]
    assert first[0].fields == ("x",)
    assert world.run(people.list_audit(1 << 62, 3, "ben")) == []
    world.run(people.tidy(world.now_ms + 400 * DAY_MS + 3))
    assert len(world.run(people.list_audit(1 << 62, 9))) == 2
