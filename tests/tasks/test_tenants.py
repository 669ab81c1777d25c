"""Numbers of tenants: the same in every process but for collisions, and never two tenants' in one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.tasks.tenants import MAX_TENANTS, TenantNumbers

# The first two bytes of SHA-256 over each name.
NUMBERS = {"anna": 21847, "berta": 8159, "abc": 47736, "t18693": MAX_TENANTS}
LIKE_ANNA = ("t58974", "t242184")
OF_ZERO = "t308821"


@pytest.fixture
def numbers():
    return TenantNumbers()


def test_the_number_of_a_name_follows_from_the_name(numbers):
    assert {name: numbers.of_name(name) for name in NUMBERS} == NUMBERS
    others = TenantNumbers()
    assert {name: others.of_name(name) for name in reversed(NUMBERS)} == NUMBERS
    assert numbers.of_name("anna") == NUMBERS["anna"], "and stays"


def test_any_text_has_a_number(numbers):
    assert len({numbers.of_name(name) for name in ("", "\ud800", "\U0001f511", "x" * 10**5)}) == 4


def test_names_of_one_digest_get_the_next_numbers_in_order_of_arrival(numbers):
    assert numbers.of_name(LIKE_ANNA[0]) == 21847
    assert numbers.of_name("anna") == 21848
    assert numbers.of_name(LIKE_ANNA[1]) == 21849
    assert numbers.of_name("anna") == 21848


def test_a_name_does_not_get_a_number_that_was_given(numbers):
    assert numbers.of_number(21847) == 21847
    assert numbers.of_name("anna") == 21848
    assert numbers.of_number(21847) == 21847


def test_a_number_that_stands_for_a_name_is_refused(numbers):
    numbers.of_name("anna")
    with pytest.raises(ValueError, match="tenant is 21847, which stands for 'anna'; give the name or another number"):
        numbers.of_number(21847)


def test_no_name_has_the_number_of_no_tenant(numbers):
    assert numbers.of_number(0) == 0
    assert numbers.of_name(OF_ZERO) == 1
    assert numbers.of_number(MAX_TENANTS) == MAX_TENANTS
    assert numbers.of_name("t18693") == 2, "after the last comes the first"
    assert numbers.of_number(0) == 0


def test_when_all_numbers_are_taken_another_name_is_refused(numbers):
    for number in range(1, MAX_TENANTS + 1):
        if number != 5:
            numbers.of_number(number)
    assert numbers.of_name("anna") == 5
    with pytest.raises(ValueError, match="tenant is 'berta', one name too many; at most 65535"):
        numbers.of_name("berta")
    assert numbers.of_name("anna") == 5


@given(st.lists(st.sampled_from([*NUMBERS, *LIKE_ANNA, OF_ZERO, 0, 1, 2, 8159, 21847, 21848, 65535]), max_size=30))
def test_no_number_ever_stands_for_two(tenants):
    numbers, owner_of = TenantNumbers(), {}
    for tenant in tenants:
        if isinstance(tenant, str):
            number = numbers.of_name(tenant)
            assert 1 <= number <= MAX_TENANTS
        elif isinstance(owner_of.get(tenant), str):
            with pytest.raises(ValueError, match="which stands for"):
                numbers.of_number(tenant)
            continue
        else:
            number = numbers.of_number(tenant)
        assert owner_of.setdefault(number, tenant) == tenant
    names = [owner for owner in owner_of.values() if isinstance(owner, str)]
    assert len(names) == len(set(names))
