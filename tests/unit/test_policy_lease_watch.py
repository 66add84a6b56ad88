"""When a standby takes a lease: the database's clock says so, unless the standby saw for itself that it was set."""

from __future__ import annotations

from outboxd.policy.lease_watch import LeaseSight, LeaseVersion, LeaseWatch

TTL = 10.0
HOUR = 3600.0


def sight(remaining: float, duration: float | None = TTL, *, renewal: int = 0) -> LeaseSight:
    return LeaseSight(LeaseVersion("holder", 1, f"expiry {renewal}"), remaining, duration)


def test_a_lease_that_expired_before_it_was_seen_is_over_at_once() -> None:
    assert LeaseWatch().is_over(sight(-3.0), 100.0)
    assert LeaseWatch().is_over(sight(0.0, None), 100.0)


def test_a_lease_is_over_when_what_was_left_of_it_has_passed() -> None:
    watch = LeaseWatch()
    assert not watch.is_over(sight(4.0), 100.0)
    assert not watch.is_over(sight(0.5), 103.5)
    assert watch.is_over(sight(-0.1), 104.1)


def test_a_lease_that_is_renewed_is_never_over_whatever_becomes_of_the_databases_clock() -> None:
    watch = LeaseWatch()
    for renewal, clock_error in enumerate([0.0, HOUR, -HOUR, 5.0, 0.0]):
        now = 100.0 + 3 * renewal
        assert not watch.is_over(sight(TTL, renewal=renewal), now)
        assert not watch.is_over(sight(TTL - 2.9 - clock_error, renewal=renewal), now + 2.9)


def test_a_lease_that_did_not_change_for_as_long_as_it_is_good_is_over_though_the_databases_clock_was_set_back() -> (
    None
):
    watch = LeaseWatch()
    assert not watch.is_over(sight(HOUR), 100.0)
    assert not watch.is_over(sight(HOUR - 9.9), 109.9)
    assert watch.is_over(sight(HOUR - 10.0), 110.0)


def test_a_clock_that_was_set_back_and_is_right_again_delays_nothing() -> None:
    watch = LeaseWatch()
    assert not watch.is_over(sight(HOUR), 100.0)
    assert watch.is_over(sight(-1.0), 111.0)


def test_a_lease_that_was_given_up_under_a_wrong_clock_is_over_at_once() -> None:
    assert LeaseWatch().is_over(sight(HOUR, 0.0), 100.0)


def test_of_a_lease_whose_owner_does_not_say_how_long_it_is_good_only_the_databases_clock_counts() -> None:
    watch = LeaseWatch()
    assert not watch.is_over(sight(HOUR, None), 100.0)
    assert not watch.is_over(sight(1.0, None), 100.0 + HOUR - 1)
    assert watch.is_over(sight(0.0, None), 100.5)
