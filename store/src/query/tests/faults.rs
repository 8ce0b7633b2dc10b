use domain::Area;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use time::Date;

use super::*;

/// Four elevators, three companies, contracts that follow each other, overlap, and are missing.
async fn registry(database: &Database) {
    register(database, 4, &[350_102, 350_102, 360_100, 350_102]).await;
    sqlx::raw_sql(
        "INSERT INTO company (credit_code, name)
         VALUES ('A', 'a'), ('B', 'b'), ('C', 'c');
         INSERT INTO contract (elevator_id, company_id, valid_from, valid_to, changed, role)
         VALUES (1, 1, '2026-01-01', '2026-10-15', '2026-01-01', 'maintenance'),
                (1, 2, '2026-10-10', NULL, '2026-10-10', 'maintenance'),
                (1, 3, '2026-01-01', NULL, '2026-01-01', 'property'),
                (2, 1, '2026-01-01', '2026-10-31', '2026-01-01', 'maintenance'),
                (3, 3, '2026-01-01', NULL, '2026-01-01', 'maintenance'),
                (3, 2, '2026-01-01', NULL, '2026-01-01', 'maintenance')",
    )
    .execute(database.pool())
    .await
    .unwrap();
}

async fn fault(database: &Database, elevator: i64, slug: &str, opened: &str, closed: Option<&str>) {
    sqlx::query(
        "INSERT INTO fault_period (elevator_id, terminal_id, code, slug, opened, closed)
         VALUES ($1, 't', $2, $2, $3::text::timestamptz, $4::text::timestamptz)",
    )
    .bind(elevator)
    .bind(slug)
    .bind(opened)
    .bind(closed)
    .execute(database.pool())
    .await
    .unwrap();
}

fn question(from: u8, last: u8) -> FaultsBy {
    FaultsBy {
        from: Month::new(2026, from).unwrap(),
        last: Month::new(2026, last).unwrap(),
        regions: Vec::new(),
        slug: None,
        company_id: None,
        now: "2026-11-23T00:00:00Z".parse().unwrap(),
    }
}

/// Month, code, maintainer, count, open, seconds; one word each.
async fn told(queries: &Queries, question: &FaultsBy) -> Vec<String> {
    let line = |one: &FaultCount| {
        let maintainer = one.maintainer.as_ref().map_or("-", |maintainer| maintainer.name.as_str());
        format!("{} {} {maintainer} {} {} {}", one.month, one.slug, one.faults, one.open, one.open_s)
    };
    queries.faults_by(question).await.unwrap().iter().map(line).collect()
}

#[tokio::test]
async fn a_fault_is_counted_once_with_who_had_the_contract() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    registry(&database).await;
    // The contracts overlap from 10 to 15 October: the later one holds.
    fault(&database, 1, "door", "2026-10-09T12:00:00+08", Some("2026-10-09T12:01:00+08")).await;
    fault(&database, 1, "door", "2026-10-12T12:00:00+08", Some("2026-10-12T12:00:30+08")).await;
    fault(&database, 1, "door", "2026-10-12T13:00:00+08", Some("2026-10-12T13:00:30+08")).await;
    // Its last day, local time; the next has none.
    fault(&database, 2, "door", "2026-10-31T23:59:59+08", Some("2026-10-31T23:59:59+08")).await;
    fault(&database, 2, "door", "2026-11-01T00:00:00+08", None).await;
    // Began together: the one noted last.
    fault(&database, 3, "motor", "2026-10-31T16:00:00Z", Some("2026-10-31T16:00:10Z")).await;
    // Nobody has ever had a contract.
    fault(&database, 4, "motor", "2026-11-02T00:00:00Z", Some("2026-11-02T00:00:00Z")).await;
    let queries = queries(&database);
    let open_s =
        "2026-11-23T00:00:00Z".parse::<Timestamp>().unwrap().since("2026-10-31T16:00:00Z".parse().unwrap());
    let all = [
        "2026-10 door a 2 0 60".to_owned(),
        "2026-10 door b 2 0 60".to_owned(),
        format!("2026-11 door - 1 1 {}", open_s.as_secs()),
        "2026-11 motor b 1 0 10".to_owned(),
        "2026-11 motor - 1 0 0".to_owned(),
    ];
    assert_eq!(told(&queries, &question(10, 11)).await, all);
    assert_eq!(told(&queries, &question(10, 10)).await, all[..2]);
    assert_eq!(told(&queries, &question(12, 12)).await, [""; 0]);
    let of = FaultsBy { slug: Some("motor".into()), ..question(1, 12) };
    assert_eq!(told(&queries, &of).await, all[3..]);
    let of = FaultsBy { company_id: Some(2), ..question(1, 12) };
    assert_eq!(told(&queries, &of).await, [all[1].clone(), all[3].clone()]);
    let of = FaultsBy { regions: vec!["360000".parse::<Area>().unwrap()], ..question(1, 12) };
    assert_eq!(told(&queries, &of).await, all[3..4]);
    queries.close().await;
}

#[tokio::test]
async fn a_month_is_found_by_its_index() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    registry(&database).await;
    sqlx::raw_sql(
        "INSERT INTO fault_period (elevator_id, terminal_id, code, slug, opened, closed)
         SELECT 1 + n % 4, 't', 'door', 'door', opened, opened + INTERVAL '1 minute'
         FROM generate_series(1, 10000) AS n,
              LATERAL (SELECT timestamptz '2024-01-01' + n * INTERVAL '2 hours' AS opened) AS at;
         ANALYZE fault_period",
    )
    .execute(database.pool())
    .await
    .unwrap();
    let queries = queries(&database);
    let plan =
        queries.plan(&FaultsBy { from: Month::new(2026, 3).unwrap(), ..question(3, 3) }).await.unwrap();
    assert!(plan.uses("fault_period_opened"), "{:#}", plan.json);
    queries.close().await;
}

/// Elevator, company, begin and end as days of 2026, end before begin now and then; role.
type Contract = (i64, i64, i32, Option<i32>, &'static str);
/// Elevator, code, begin as a minute of 2026, seconds it lasted.
type Fault = (i64, &'static str, i64, Option<i64>);

fn contract() -> impl Strategy<Value = Contract> {
    // Few days to begin and end on, so that many begin together, end together and follow each other.
    let begin = prop_oneof![Just(1), (50..80_i32).prop_map(|day| day * 4), 200..320_i32];
    let lasts = prop_oneof![1 => -3..0_i32, 3 => 0..10_i32, 6 => 10..120_i32];
    let end = proptest::option::weighted(0.8, lasts);
    let role = prop_oneof![9 => Just("maintenance"), 1 => Just("property")];
    (1..=60_i64, 1..=6_i64, begin, end, role).prop_map(|(elevator, company, begin, lasts, role)| {
        (elevator, company, begin, lasts.map(|lasts| begin + lasts), role)
    })
}

fn happened() -> impl Strategy<Value = Fault> {
    let slug = prop_oneof![Just("door"), Just("motor"), Just("brake")];
    let lasted = proptest::option::weighted(0.9, 0..100_000_i64);
    // From 20 July to the end of the year, half of them about midnight.
    let minute = prop_oneof![
        (200 * 1_440..365 * 1_440_i64),
        (200..365_i64, -2..2_i64).prop_map(|(day, minute)| day * 1_440 + minute),
    ];
    (1..=60_i64, slug, minute, lasted)
}

/// What the question promises, said of one fault after the other.
const MODEL: &str = "
    SELECT to_char(fault.day, 'YYYY-MM') || ' ' || fault.slug || ' ' || coalesce(company.name, '-') || ' '
           || count(*) || ' ' || count(*) FILTER (WHERE fault.closed IS NULL) || ' '
           || sum(greatest(date_part('epoch', coalesce(fault.closed, $3) - fault.opened), 0))::int8
    FROM (
        SELECT *, (opened AT TIME ZONE INTERVAL '8 hours')::date AS day
        FROM fault_period
    ) AS fault
    LEFT JOIN LATERAL (
        SELECT contract.company_id
        FROM contract
        WHERE contract.elevator_id = fault.elevator_id
          AND contract.role = 'maintenance'
          AND contract.valid_from <= fault.day
          AND (contract.valid_to IS NULL OR contract.valid_to >= fault.day)
        ORDER BY contract.valid_from DESC, contract.contract_id DESC
        LIMIT 1
    ) AS held ON true
    LEFT JOIN company USING (company_id)
    WHERE fault.opened >= $1
      AND fault.opened < $2
      AND ($4::int8 IS NULL OR held.company_id = $4)
      AND ($5::int4 IS NULL OR fault.elevator_id IN (SELECT elevator_id FROM elevator WHERE area = $5))
    GROUP BY to_char(fault.day, 'YYYY-MM'), fault.slug, company.company_id, company.name
    ORDER BY to_char(fault.day, 'YYYY-MM'), fault.slug, company.company_id NULLS LAST";

#[tokio::test]
async fn contracts_are_found_as_by_looking_at_each_fault() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    register(&database, 60, &[350_102, 360_100]).await;
    sqlx::query("INSERT INTO company (name) SELECT 'company' || n FROM generate_series(1, 6) AS n")
        .execute(database.pool())
        .await
        .unwrap();
    let queries = queries(&database);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..8 {
        sqlx::raw_sql("TRUNCATE contract, fault_period").execute(database.pool()).await.unwrap();
        let contracts =
            proptest::collection::vec(contract(), 0..250).new_tree(&mut runner).unwrap().current();
        let faults = proptest::collection::vec(happened(), 1_500).new_tree(&mut runner).unwrap().current();
        insert(&database, &contracts, &faults).await;
        for (from, last, company_id, area) in [
            (8, 8, None, None),
            (7, 12, None, None),
            (9, 10, Some(3), None),
            (9, 12, None, Some("360100")),
            (10, 11, Some(1), Some("350102")),
        ] {
            let regions = area.map(|area| area.parse::<Area>().unwrap()).into_iter().collect();
            let asked = FaultsBy { regions, company_id, ..question(from, last) };
            let expected: Vec<String> = sqlx::query_scalar(MODEL)
                .bind(asked.from.begin().to_utc())
                .bind(asked.last.end().to_utc())
                .bind(asked.now.to_utc())
                .bind(company_id)
                .bind(area.map(|area| area.parse::<i32>().unwrap()))
                .fetch_all(database.pool())
                .await
                .unwrap();
            assert!(!expected.is_empty() || company_id.is_some());
            assert_eq!(told(&queries, &asked).await, expected, "{asked:?}\n{contracts:?}");
        }
    }
    queries.close().await;
}

async fn insert(database: &Database, contracts: &[Contract], faults: &[Fault]) {
    let first = Date::from_calendar_date(2025, time::Month::December, 31).unwrap();
    let day = |day: i32| first + time::Duration::days(day.into());
    sqlx::query(
        "INSERT INTO contract (elevator_id, company_id, valid_from, valid_to, changed, role)
         SELECT elevator_id, company_id, valid_from, valid_to, valid_from, role
         FROM unnest($1::int8[], $2::int8[], $3::date[], $4::date[], $5::text[])
              AS made (elevator_id, company_id, valid_from, valid_to, role)",
    )
    .bind(contracts.iter().map(|one| one.0).collect::<Vec<_>>())
    .bind(contracts.iter().map(|one| one.1).collect::<Vec<_>>())
    .bind(contracts.iter().map(|one| day(one.2)).collect::<Vec<_>>())
    .bind(contracts.iter().map(|one| one.3.map(day)).collect::<Vec<_>>())
    .bind(contracts.iter().map(|one| one.4).collect::<Vec<_>>())
    .execute(database.pool())
    .await
    .unwrap();
    // Two of one elevator and code do not begin together.
    sqlx::query(
        "INSERT INTO fault_period (elevator_id, terminal_id, code, slug, opened, closed)
         SELECT elevator_id, 't', slug, slug, opened, opened + lasted * INTERVAL '1 second'
         FROM unnest($1::int8[], $2::text[], $3::int8[], $4::int8[]) AS made (elevator_id, slug, minute, lasted),
              LATERAL (SELECT timestamptz '2026-01-01 00:00+08' + minute * INTERVAL '1 minute' AS opened) AS at
         ON CONFLICT DO NOTHING",
    )
    .bind(faults.iter().map(|one| one.0).collect::<Vec<_>>())
    .bind(faults.iter().map(|one| one.1).collect::<Vec<_>>())
    .bind(faults.iter().map(|one| one.2).collect::<Vec<_>>())
    .bind(faults.iter().map(|one| one.3).collect::<Vec<_>>())
    .execute(database.pool())
    .await
    .unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert!(question(3, 2).check().is_err());
    assert!(FaultsBy { from: Month::new(2023, 1).unwrap(), ..question(1, 1) }.check().is_err());
    assert!(FaultsBy { now: Timestamp::from_micros(i64::MAX), ..question(1, 1) }.check().is_err());
    assert!(question(1, 12).check().is_ok());
}
