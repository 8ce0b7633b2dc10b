//! What questions cost on a large table: `cargo bench --bench queries [-- ROWS [ELEVATORS]] [--keep]`, 45 million rows
//! of 100,000 elevators by default, about 10 GB of disk, dropped at the end.
//!
//! Cold: the files of the database are taken out of the system's page cache before (where this process may read
//! them), and each run asks of another elevator, minute or region. Warm: the same question again and again. Then
//! once more, warm, while a writer commits 20,000 rows a second. Each is asked as the server would ask it, over
//! one connection, until the last row is decoded.
//!
//! `--keep` leaves the database and prints its URL; with that in LIFTWATCH_BENCH_URL the next run uses it as it is.

mod beside;
mod city;
mod measure;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use beside::Ingest;
use city::City;
use domain::{Area, ArrivalNo, ElevatorId, Timestamp};
use measure::{Table, cold, load};
use store::testing::TestDatabase;
use store::{
    AlarmCommitter, Database, ElevatorSeries, ElevatorState, FaultsBy, FleetFilter, FleetMinute,
    LatestStates, Month, PresenceRecord, Queries, QueryConfig, QueryMetrics, SeriesField, StoreConfig,
};

const DAYS: i64 = 3;
const COLD_ROUNDS: i64 = 3;
const HOUR: Duration = Duration::from_hours(1);

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<i64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let rows = numbers.first().copied().unwrap_or(45_000_000);
    let elevators = numbers.get(1).copied().unwrap_or(100_000);
    let kept = std::env::var("LIFTWATCH_BENCH_URL").ok();
    let test = if kept.is_none() { Some(TestDatabase::new().await) } else { None };
    let url = kept.as_deref().or(test.as_ref().map(TestDatabase::url)).expect("one of the two");
    let config = StoreConfig { chunk_interval: HOUR, ..StoreConfig::default() };
    let database = Database::connect_with(url, config).await.expect("the database answers");
    database.migrate().await.expect("one that was kept may be older");
    database.ensure().await.expect("the schema can be ensured");
    println!("load average {}", load());
    let city = if kept.is_none() {
        build(&database, rows, elevators).await
    } else {
        city(rows, elevators, newest(&database).await)
    };
    // One that was kept may be older than the faults.
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM fault_period")
        .fetch_one(database.pool())
        .await
        .expect("a count");
    if kept == 0 {
        faults(&database, city.elevators, city.end).await;
    }
    measure::describe(&database).await;

    let timeout = Duration::from_mins(2);
    let queries = Queries::new(
        &database,
        &QueryConfig { timeout, ..QueryConfig::default() },
        Arc::new(QueryMetrics::default()),
    );
    let head =
        ["question", "rows out", "cold p50", "warm p50", "warm p95", "CPU", "beside writes p50", "p95"];
    let mut table = Table::new(&head);
    let mut plans = Vec::new();
    for ask in Ask::ALL {
        let mut line = vec![ask.name().to_owned()];
        let (mut cold_runs, mut out) = (Vec::new(), 0);
        for round in 0..COLD_ROUNDS {
            cold(&database).await;
            let (took, rows) = ask.run(&queries, &city, round + 1).await;
            cold_runs.push(took);
            out = rows;
        }
        let _ = ask.run(&queries, &city, 0).await;
        let mut warm = Vec::new();
        let cpu_s = measure::backends_cpu_s(&database).await;
        for _ in 0..ask.warm_rounds() {
            warm.push(ask.run(&queries, &city, 0).await.0);
        }
        let cpu_s = measure::backends_cpu_s(&database).await - cpu_s;
        let (ingest, mut beside) = (Ingest::start(&database, city.elevators).await, Vec::new());
        for _ in 0..ask.warm_rounds() {
            beside.push(ask.run(&queries, &city, 0).await.0);
        }
        let written = ingest.stop().await;
        line.push(out.to_string());
        line.extend([
            measure::at(&mut cold_runs, 0.5),
            measure::at(&mut warm, 0.5),
            measure::at(&mut warm, 0.95),
            format!("{:.1} ms", cpu_s * 1e3 / ask.warm_rounds() as f64),
        ]);
        line.extend([measure::at(&mut beside, 0.5), measure::at(&mut beside, 0.95)]);
        plans.push((ask.name(), ask.plan(&queries, &city).await, written));
        table.row(line);
    }
    table.print();
    println!("\nload average {}", load());
    for (name, plan, written) in plans {
        println!("{name}: {plan}; beside it {written}");
    }
    queries.close().await;
    if words.iter().any(|word| word == "--keep") {
        println!("LIFTWATCH_BENCH_URL={url}");
        if let Some(test) = test {
            test.keep();
        }
    }
}

/// The city that has about so many rows.
fn city(rows: i64, elevators: i64, end: Timestamp) -> City {
    let rush = elevators * 3_600 / city::PERIOD_S;
    let quiet = elevators * 24 * DAYS;
    let busy = (rows - rush - quiet) / (DAYS * 86_400 / city::PERIOD_S);
    City { elevators, busy: busy.clamp(elevators.min(10), elevators), rush: true, end }
}

async fn build(database: &Database, rows: i64, elevators: i64) -> City {
    let now: Timestamp = time::OffsetDateTime::now_utc().into();
    let city = city(rows, elevators, Timestamp::from_micros(now.micros() / 3_600_000_000 * 3_600_000_000));
    println!("{elevators} elevators, {} of them busy all the time, {DAYS} days", city.busy);
    let began = Instant::now();
    city::register(database, elevators).await;
    states(database, elevators, city.end).await;
    let rows = city.fill(database, DAYS * 86_400, 0).await;
    println!("{rows} rows in {:.0} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let now = city.end.plus(Duration::from_mins(10));
    while database.maintenance_run(now).await.expect("minutes are rolled up").more {}
    println!("rolled up in {:.0} s", began.elapsed().as_secs_f64());
    sqlx::raw_sql("VACUUM (ANALYZE)").execute(database.pool()).await.expect("statistics");
    city
}

/// The end of a city built before: when its states were written.
async fn newest(database: &Database) -> Timestamp {
    let written: time::OffsetDateTime =
        sqlx::query_scalar("SELECT time FROM elevator_state WHERE elevator_id = 1")
            .fetch_one(database.pool())
            .await
            .expect("a city built before");
    written.into()
}

/// The latest state and the presence of every elevator, with a memory of the engine of the usual size.
async fn states(database: &Database, elevators: i64, at: Timestamp) {
    let mut committer = AlarmCommitter::new(database.clone());
    let ids: Vec<i64> = (1..=elevators).collect();
    for ids in ids.chunks(5_000) {
        let states: Vec<_> = ids.iter().map(|id| state(*id, at)).collect();
        committer.checkpoint(&states, ArrivalNo(1)).await.expect("states are saved");
        let presence: Vec<_> = states.iter().map(|state| presence(state, at)).collect();
        database.presence_store(&presence).await.expect("presence is saved");
    }
}

fn presence(state: &ElevatorState, at: Timestamp) -> PresenceRecord {
    PresenceRecord {
        terminal_id: state.terminal_id.clone(),
        online: true,
        reason: "connected".into(),
        since: at,
        last_seen: at,
        arrival_no: state.arrival.no,
    }
}

fn state(id: i64, at: Timestamp) -> ElevatorState {
    let incoming = support::incoming(id - 1, i64::MAX, at);
    ElevatorState {
        elevator_id: ElevatorId(id),
        terminal_id: domain::TerminalId::new(&format!("bench-{id:06}")).expect("a terminal id"),
        area: Area::from_number(350_101).expect("an area"),
        online: Some(true),
        last_seen: Some(at),
        time: Some(at),
        service_mode: Some(domain::ServiceMode::Normal),
        car_status: Some(domain::CarStatus::Running),
        direction: Some(domain::Direction::Up),
        door_zone: Some(false),
        door_state: Some(domain::DoorState::Closed),
        passengers: Some(domain::Passengers::Yes),
        people: Some(true),
        floor: Some("12".to_owned()),
        floor_ordinal: Some(11),
        position_mm: Some(33_250),
        velocity_mm_s: Some(1_750),
        load_kg: Some(225),
        people_count: None,
        flags: Some(0),
        temperature_dc: None,
        vibration_mm_s2: None,
        codes: Vec::new(),
        code_slugs: Vec::new(),
        arrival: incoming.arrival,
        changed: incoming.arrival.no,
        engine_version: 1,
        engine: format!("{{\"memory\": \"{}\"}}", "x".repeat(500)),
    }
}

/// A year of faults until `end`, one per elevator and month, five minutes long, of twenty codes; the newest of a hundredth
/// of the fleet are still open.
async fn faults(database: &Database, elevators: i64, end: Timestamp) {
    sqlx::query(
        "INSERT INTO fault_period (elevator_id, terminal_id, code, slug, opened, closed, closed_by)
         SELECT id, 'bench-' || lpad(id::text, 6, '0'), 'code' || (id * 7 + month) % 20, 'code' || (id * 7 + month) % 20,
             opened, CASE WHEN month > 0 OR id % 100 > 0 THEN opened + INTERVAL '5 minutes' END,
             CASE WHEN month > 0 OR id % 100 > 0 THEN 'event' END
         FROM generate_series(11, 0, -1) AS month,
             generate_series(1, $1::int8) AS id,
             LATERAL (SELECT $2 - (month * 30 + id * 7919 % 100000 / 3400.0) * INTERVAL '1 day' AS opened) AS at
         ORDER BY opened",
    )
    .bind(elevators)
    .bind(end.to_utc())
    .execute(database.pool())
    .await
    .expect("faults are made");
    sqlx::raw_sql("VACUUM (ANALYZE) fault_period").execute(database.pool()).await.expect("statistics");
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Fleet,
    FleetPage,
    City,
    Changed,
    Day,
    DayOfThree,
    Days,
    Minute,
    MinuteOfCity,
    FaultsOfMonth,
    FaultsOfYear,
    FaultsOfCity,
}

impl Ask {
    const ALL: [Ask; 12] = [
        Ask::Fleet,
        Ask::FleetPage,
        Ask::City,
        Ask::Changed,
        Ask::Day,
        Ask::DayOfThree,
        Ask::Days,
        Ask::Minute,
        Ask::MinuteOfCity,
        Ask::FaultsOfMonth,
        Ask::FaultsOfYear,
        Ask::FaultsOfCity,
    ];

    fn name(self) -> &'static str {
        match self {
            Ask::Fleet => "latest state of all elevators, pages of 10,000",
            Ask::FleetPage => "the same, a page of 1,000",
            Ask::City => "latest state of one city of ten",
            Ask::Changed => "what has changed in the fleet: nothing",
            Ask::Day => "one elevator's day, position, 500 points",
            Ask::DayOfThree => "the same, position, speed and load",
            Ask::Days => "one elevator's three days by the minute, speed, 500 points",
            Ask::Minute => "one minute of the fleet",
            Ask::MinuteOfCity => "one minute of one city of ten",
            Ask::FaultsOfMonth => "faults of a month by code and maintainer",
            Ask::FaultsOfYear => "faults of twelve months by code, maintainer and month",
            Ask::FaultsOfCity => "faults of twelve months of one city of ten",
        }
    }

    fn warm_rounds(self) -> usize {
        match self {
            Ask::Fleet | Ask::Minute | Ask::MinuteOfCity | Ask::FaultsOfYear => 10,
            _ => 40,
        }
    }

    /// Asks; `round` 0 is always the same, others are each about something else.
    async fn run(self, queries: &Queries, city: &City, round: i64) -> (Duration, usize) {
        let began = Instant::now();
        let rows = match self {
            Ask::Fleet | Ask::FleetPage | Ask::City | Ask::Changed => {
                let (mut rows, mut after) = (0, None);
                loop {
                    let page =
                        queries.latest_states(&LatestStates { after, ..self.states(city, round) }).await;
                    let page = page.expect("a page");
                    rows += page.states.len();
                    after = page.next;
                    if after.is_none() || matches!(self, Ask::FleetPage) {
                        break rows;
                    }
                }
            }
            Ask::Day | Ask::DayOfThree | Ask::Days => {
                let series = queries.elevator_series(&self.series(city, round)).await.expect("a series");
                series.fields.iter().map(|field| field.points.len()).sum()
            }
            Ask::Minute | Ask::MinuteOfCity => {
                let mut rows = 0;
                queries.fleet_minute(&self.minute(city, round), |_| rows += 1).await.expect("a minute");
                rows
            }
            Ask::FaultsOfMonth | Ask::FaultsOfYear | Ask::FaultsOfCity => {
                queries.faults_by(&self.faults(city, round)).await.expect("faults").len()
            }
        };
        (began.elapsed(), rows)
    }

    async fn plan(self, queries: &Queries, city: &City) -> String {
        let plan = match self {
            Ask::Fleet | Ask::FleetPage | Ask::City | Ask::Changed => {
                queries.plan(&self.states(city, 0)).await
            }
            Ask::Day | Ask::DayOfThree | Ask::Days => queries.plan(&self.series(city, 0)).await,
            Ask::Minute | Ask::MinuteOfCity => queries.plan(&self.minute(city, 0)).await,
            Ask::FaultsOfMonth | Ask::FaultsOfYear | Ask::FaultsOfCity => {
                queries.plan(&self.faults(city, 0)).await
            }
        };
        let plan = plan.expect("a plan");
        let mut indexes: Vec<String> = plan.indexes.iter().map(|name| measure::index_name(name)).collect();
        indexes.sort();
        indexes.dedup();
        let mut scanned: Vec<_> = plan.scanned.iter().map(String::as_str).collect();
        scanned.sort_unstable();
        format!(
            "{}, {} chunks, read from end to end: [{}]",
            indexes.join(", "),
            plan.chunks(),
            scanned.join(", ")
        )
    }

    fn states(self, city: &City, round: i64) -> LatestStates {
        let region = Area::from_number(350_100 + (round % 10 * 100).unsigned_abs() as u32).expect("an area");
        LatestStates {
            filter: if matches!(self, Ask::City) {
                FleetFilter::Regions(vec![region])
            } else {
                FleetFilter::All
            },
            changed_since: matches!(self, Ask::Changed).then_some(ArrivalNo(i64::MAX)),
            after: matches!(self, Ask::FleetPage).then_some(ElevatorId(round * city.elevators / 8)),
            limit: if matches!(self, Ask::FleetPage) { 1_000 } else { LatestStates::LIMIT_MAX },
        }
    }

    fn series(self, city: &City, round: i64) -> ElevatorSeries {
        let back = Duration::from_hours(if matches!(self, Ask::Days) { 72 } else { 25 });
        ElevatorSeries {
            elevator_id: ElevatorId(1 + (round * 37 + self as i64) % city.busy),
            from: city.end.minus(back),
            to: city.end.minus(if matches!(self, Ask::Days) { Duration::ZERO } else { HOUR }),
            points: 500,
            fields: match self {
                Ask::DayOfThree => {
                    vec![SeriesField::PositionMm, SeriesField::VelocityMmS, SeriesField::LoadKg]
                }
                Ask::Days => vec![SeriesField::VelocityMmS],
                _ => vec![SeriesField::PositionMm],
            },
        }
    }

    fn faults(self, city: &City, round: i64) -> FaultsBy {
        let month = |back: u64| {
            let day =
                city.end.minus(Duration::from_hours(24 * 30 * back)).to_utc().expect("a day of our time");
            Month::new(day.year(), day.month().into()).expect("a month")
        };
        let one = matches!(self, Ask::FaultsOfMonth);
        let region = Area::from_number(350_100 + (round % 10 * 100).unsigned_abs() as u32).expect("an area");
        FaultsBy {
            from: month(if one { 1 + round.unsigned_abs() } else { 11 }),
            last: month(if one { 1 + round.unsigned_abs() } else { 0 }),
            regions: if matches!(self, Ask::FaultsOfCity) { vec![region] } else { Vec::new() },
            slug: None,
            company_id: None,
            now: city.end,
        }
    }

    fn minute(self, city: &City, round: i64) -> FleetMinute {
        let region = Area::from_number(350_200).expect("an area");
        FleetMinute {
            minute: city.end.minus(Duration::from_mins(5 + 7 * round.unsigned_abs())),
            regions: if matches!(self, Ask::MinuteOfCity) { vec![region] } else { Vec::new() },
        }
    }
}
