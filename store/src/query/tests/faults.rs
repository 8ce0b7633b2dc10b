use domain::Area;

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

#[test]
fn what_makes_no_sense_is_refused() {
    assert!(question(3, 2).check().is_err());
    assert!(FaultsBy { from: Month::new(2023, 1).unwrap(), ..question(1, 1) }.check().is_err());
    assert!(FaultsBy { now: Timestamp::from_micros(i64::MAX), ..question(1, 1) }.check().is_err());
    assert!(question(1, 12).check().is_ok());
}
