use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::auth::{ClientCertificate, Transport};

const S: Duration = Duration::from_secs(1);

fn limits() -> RateLimits {
    RateLimits { trusted: Vec::new(), ..RateLimits::default() }
}

fn limiter(limits: RateLimits) -> Arc<Limiter> {
    Limiter::new(limits, Counter::default())
}

fn origin(address: &str) -> Origin {
    let peer = SocketAddr::new(address.parse().unwrap(), 5_000);
    Origin { peer, transport: Transport::Tcp, certificate: None }
}

fn id(text: &str) -> Arc<str> {
    text.into()
}

#[test]
fn an_address_has_so_many_connections_at_once() {
    let limiter = limiter(RateLimits { address_connections_max: 2, ..limits() });
    let (one, other) = ("203.0.113.1".parse().unwrap(), "203.0.113.2".parse().unwrap());
    let now = Instant::now();
    let _first = limiter.arrive(one, now).unwrap();
    let second = limiter.arrive(one, now).unwrap();
    assert_eq!(limiter.arrive(one, now).unwrap_err(), "address_connections");
    assert!(limiter.arrive(other, now).is_ok());
    drop(second);
    assert!(limiter.arrive(one, now).is_ok());
}

#[test]
fn an_address_begins_so_many_connections() {
    let limits = RateLimits { address_connects_per_s: 10, address_connects_burst: 3, ..limits() };
    let limiter = limiter(limits);
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    let neighbour: IpAddr = "2001:db8::ffff:2".parse().unwrap();
    let now = Instant::now();
    for _ in 0..3 {
        limiter.arrive(address, now).unwrap();
    }
    assert_eq!(limiter.arrive(neighbour, now).unwrap_err(), "address_connects", "the same /64");
    assert!(limiter.arrive(neighbour, now + S / 10).is_ok());
    assert!(limiter.arrive(neighbour, now + S / 10).is_err());
}

#[test]
fn a_trusted_network_is_not_limited() {
    let limits = RateLimits {
        address_connections_max: 1,
        client_connects_burst: 1,
        client_failures_max: 1,
        ..RateLimits::default()
    };
    let limiter = limiter(limits);
    let now = Instant::now();
    let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
    let _seats = [limiter.arrive(mapped, now).unwrap(), limiter.arrive(mapped, now).unwrap()];
    limiter.failed(&origin("127.0.0.1"), "T1", now);
    assert!(limiter.may_try(&origin("127.0.0.1"), "T1", now));
    assert!(limiter.connect(&origin("127.0.0.1"), &id("T1"), now).unwrap().is_none());
}

#[test]
fn wrong_passwords_shut_out_one_client_then_the_address() {
    let limiter = limiter(RateLimits { client_failures_max: 2, address_failures_max: 4, ..limits() });
    let now = Instant::now();
    let from = origin("203.0.113.1");
    limiter.failed(&from, "T1", now);
    assert!(limiter.may_try(&from, "T1", now));
    limiter.failed(&from, "T1", now);
    assert!(!limiter.may_try(&from, "T1", now));
    assert!(limiter.may_try(&from, "T2", now), "behind the same address");
    assert!(limiter.may_try(&origin("203.0.113.2"), "T1", now), "elsewhere");
    limiter.failed(&from, "T3", now);
    limiter.failed(&from, "T4", now);
    assert!(!limiter.may_try(&from, "T2", now));
    let certificate = ClientCertificate { common_name: "T2".into(), serial: "1".into() };
    let proven = Origin { certificate: Some(Arc::new(certificate)), ..from.clone() };
    assert!(limiter.may_try(&proven, "T2", now), "a certificate is no guess");
    assert!(limiter.may_try(&from, "T1", now + 60 * S), "the pause is over");
}

#[test]
fn a_client_connects_so_often_and_its_allowance_survives() {
    let limits = RateLimits { client_connects_per_min: 6, client_connects_burst: 2, ..limits() };
    let limiter = limiter(limits);
    let now = Instant::now();
    let from = origin("203.0.113.1");
    let meter = limiter.connect(&from, &id("T1"), now).unwrap().unwrap();
    meter.charge(true, 100, now);
    drop(meter);
    limiter.prune(now);
    let meter = limiter.connect(&from, &id("T1"), now).unwrap().unwrap();
    assert!(!lock(&meter.used).bytes.is_rested(now));
    assert_eq!(limiter.connect(&from, &id("T1"), now).unwrap_err(), TooOften);
    assert!(limiter.connect(&from, &id("T2"), now).is_ok());
    assert!(limiter.connect(&from, &id("T1"), now + 10 * S).is_ok());
}

#[test]
fn tables_are_bounded_and_forget_who_is_at_rest() {
    let limiter = limiter(RateLimits { remembered_max: 3, ..limits() });
    let now = Instant::now();
    for i in 1..=9_u8 {
        let address = format!("203.0.113.{i}");
        drop(limiter.arrive(address.parse().unwrap(), now).unwrap());
        limiter.failed(&origin(&address), "T1", now);
        limiter.connect(&origin(&address), &id(&address), now).unwrap();
    }
    let sizes = || {
        (
            lock(&limiter.addresses).known.len(),
            lock(&limiter.failures).known.len(),
            lock(&limiter.clients).len(),
        )
    };
    assert_eq!(sizes(), (3, 3, 3));
    assert_eq!(limiter.uncounted.get(), 6 + 15 + 6, "three tables, of which one counts twice");
    limiter.prune(now + 61 * S);
    assert_eq!(sizes(), (0, 0, 0));
}

#[test]
fn a_fast_client_is_slowed_and_only_then_ended() {
    let limits = RateLimits {
        client_messages_per_s: 10,
        client_messages_burst: 10,
        client_slowed_max: 5 * S,
        ..limits()
    };
    let start = Instant::now();
    let meter = Meter::new(&limits, start);
    let mut now = start;
    let mut served = 0;
    let ended = loop {
        match meter.turn(now) {
            Turn::Now => {
                meter.charge(true, 50, now);
                served += 1;
            }
            Turn::At(until) => now = until,
            Turn::Never => break now,
        }
    };
    assert!((55..=65).contains(&served), "{served}");
    assert!(ended >= start + 5 * S && ended < start + 6 * S);
}

#[test]
fn who_catches_up_begins_anew() {
    let limits = RateLimits {
        client_messages_per_s: 10,
        client_messages_burst: 10,
        client_slowed_max: 5 * S,
        ..limits()
    };
    let start = Instant::now();
    let meter = Meter::new(&limits, start);
    for round in 0..10 {
        let now = start + 2 * S * round;
        for _ in 0..10 {
            assert_eq!(meter.turn(now), Turn::Now);
            meter.charge(true, 50, now);
        }
        assert!(matches!(meter.turn(now), Turn::At(_)), "in round {round}");
    }
}

#[test]
fn a_large_message_is_a_debt() {
    let limits = RateLimits { client_bytes_per_s: 1_000, client_bytes_burst: 1_000, ..limits() };
    let now = Instant::now();
    let meter = Meter::new(&limits, now);
    assert_eq!(meter.turn(now), Turn::Now);
    meter.charge(true, 5_000, now);
    let Turn::At(until) = meter.turn(now) else { panic!("it has to wait") };
    assert_eq!(until.duration_since(now).as_millis(), 4_001);
    assert_eq!(meter.turn(until), Turn::Now);
}

proptest! {
    /// Whatever comes whenever: never more in any time than the burst, the rate and one debt.
    #[test]
    fn the_rate_holds(
        steps in prop::collection::vec((0..2_000_u64, 1..3_000_u32), 1..300),
        per_s in 1..10_000_u32,
        burst in 1..10_000_u32,
    ) {
        let quota = Quota::new(per_s, S, burst);
        let start = Instant::now();
        let (mut now, mut pace, mut served) = (start, Pace(start), 0_f64);
        for (pause_ms, units) in steps {
            now += Duration::from_millis(pause_ms);
            if let Some(until) = pace.waits_until(quota, now) {
                prop_assert!(until > now);
                prop_assert!(pace.waits_until(quota, until).is_none(), "one wait is enough");
                now = until;
            }
            let before = served;
            pace.charge(quota, units, now);
            served += f64::from(units);
            let allowed = f64::from(burst) + f64::from(per_s) * (now - start).as_secs_f64() * 1.001 + 1.0;
            prop_assert!(before <= allowed, "{before} of {allowed}");
        }
    }

    /// A client that keeps within its rate never waits.
    #[test]
    fn the_polite_never_wait(count in 1..500_u32, per_s in 1..1_000_u32) {
        let quota = Quota::new(per_s, S, 2);
        let start = Instant::now();
        let mut pace = Pace(start);
        for i in 0..count {
            let now = start + (S / per_s + Duration::from_nanos(1)) * i;
            prop_assert_eq!(pace.waits_until(quota, now), None);
            pace.charge(quota, 1, now);
        }
    }
}
