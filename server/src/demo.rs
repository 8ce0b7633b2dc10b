//! `liftwatch demo`: the whole system at work, in one process, on free loopback ports and a database of its
//! own that is dropped at the end.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use domain::{Alarm, AlarmChange, AlarmEvent, Severity, Timestamp};
use indicatif::{ProgressBar, ProgressStyle};
use proto::dispatch::v1::watch_response;
use simulator::{Fault, FaultKind, Fleet, FleetConfig, FleetHandle, FleetReport, Rate};
use store::local::LocalDatabase;
use store::{Database, ScratchDatabase, StoreConfig};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Totals};
use crate::cli::DemoArgs;
use crate::config::{Config, LogFormat};
use crate::{dispatch, logging};

/// How long anything of the demo may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Terminal ids of the fleet begin with this.
const PREFIX: &str = "sim-";
/// The elevator whose controller reports an S1 fault: what needs no timer shows the delay of the path.
const FAULTY: usize = 0;
/// The elevator that traps its passengers.
const TRAPPING: usize = 1;

/// Runs the demo; with `--check` it ends with a verdict and exit code 0 or 1.
pub(crate) async fn run(arguments: &DemoArgs, cancel: CancellationToken) -> anyhow::Result<ExitCode> {
    logging::start(LogFormat::Text, "warn")?;
    let began = Instant::now();
    say("starting the private TimescaleDB (the first time it is downloaded, which takes some seconds)");
    let local = LocalDatabase::new();
    let url = local.up(|step| eprintln!("  {step}")).await?;
    let scratch =
        ScratchDatabase::create(&url, "liftwatch_demo").await.context("no database for the demo")?;

    let outcome = play(arguments, scratch.url(), began, &cancel).await;
    scratch.remove().await.context("the demo's database could not be dropped")?;
    outcome
}

async fn play(
    arguments: &DemoArgs,
    url: &str,
    began: Instant,
    cancel: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let mut config = Config::default();
    config.broker.listen = Some((std::net::Ipv4Addr::LOCALHOST, 0).into());
    for listen in [&mut config.dispatch.listen, &mut config.web.listen] {
        listen.set_port(0);
    }
    config.check_dev()?;
    let app = App::start(&config, url, true).await?;
    let addresses = app.addresses().clone();
    let totals = app.totals();
    let (Some(broker), Some(dispatch_at), Some(web)) = (addresses.broker, addresses.dispatch, addresses.web)
    else {
        bail!("the demo runs every service")
    };
    say(&format!(
        "all services run: MQTT {broker}, dispatch (gRPC) {dispatch_at}, status page http://{web}/"
    ));

    let stop = CancellationToken::new();
    let serving = tokio::spawn(app.run(stop.clone()));
    let mut dispatcher = Dispatcher::connect(&dispatch_at.to_string()).await?;
    let ledger = tempfile::NamedTempFile::new().context("no temporary file for the ledger")?;
    let fleet_config = FleetConfig {
        target: broker.to_string(),
        terminals: arguments.terminals as usize,
        // A reading from each elevator every two seconds: a city of this size on a busy morning.
        rate: Rate::PerSecond(f64::from(arguments.terminals) / 2.0),
        connects_per_second: 500.0,
        acked_file: Some(ledger.path().to_owned()),
        drain: Duration::from_secs(20),
        traffic: 20.0,
        ..FleetConfig::default()
    };
    let fleet = Fleet::start(fleet_config).await?;
    let line = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {msg}").context("a progress line")?);
    let scene = scene(arguments, &fleet, &totals, &mut dispatcher, &line, cancel);
    let seen = tokio::select! {
        seen = scene => Some(seen?),
        () = cancel.cancelled() => None,
    };
    line.finish_and_clear();

    if seen.is_some() && !arguments.check {
        say("the system keeps running until Ctrl-C. To try:");
        println!("  status page     http://{web}/");
        println!("  watch alarms    liftwatch dispatch watch --server {dispatch_at}");
        println!(
            "  be a terminal   mosquitto_pub -h 127.0.0.1 -p {} -i t1 -q 1 -t lift/v1/350102/t1/event.json \\\n                    -m \"{{\\\"time\\\":\\\"$(date -Is)\\\",\\\"code\\\":\\\"unintended_movement\\\",\\\"state\\\":\\\"open\\\"}}\"",
            broker.port()
        );
        show_counts(&fleet, &totals, &line, cancel).await;
        line.finish_and_clear();
    }
    say("stopping: the fleet sends what it still holds, then the services drain");
    let report = fleet.stop().await;
    let alarms = dispatcher.entrapments(&simulator::fleet::terminal_name(PREFIX, TRAPPING));
    drop(dispatcher);
    stop.cancel();
    serving.await.context("the services panicked")??;
    println!("{report}");
    let Some(seen) = seen else { return Ok(ExitCode::SUCCESS) };
    if !arguments.check {
        return Ok(ExitCode::SUCCESS);
    }
    verdict(url, &report, ledger.path(), &seen, alarms, began).await
}

/// What the scene has shown.
struct Seen {
    entrapment: Alarm,
    acknowledged_no: i64,
}

/// Fleet up, one S1 fault, one entrapment, one acknowledgement.
async fn scene(
    arguments: &DemoArgs,
    fleet: &FleetHandle,
    totals: &Totals,
    dispatcher: &mut Dispatcher,
    line: &ProgressBar,
    cancel: &CancellationToken,
) -> anyhow::Result<Seen> {
    let connected = async {
        while fleet.counters().connected < u64::from(arguments.terminals) {
            show(fleet, totals, line);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.context("the fleet did not connect")?;
    // Two more seconds, so that people see the counts move before something happens.
    let quiet = CancellationToken::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), show_counts(fleet, totals, line, &quiet)).await;

    let faulty = simulator::fleet::terminal_name(PREFIX, FAULTY);
    line.suspend(|| say(&format!("{faulty}: the car will creep out of a landing with its door open: an S1 fault that needs no timer")));
    fleet.inject(FAULTY, Fault::new(FaultKind::UnintendedMovement));
    let (event, at) = dispatcher.raised(&faulty, "unintended_movement").await?;
    let path = seen_at(at).since(event.alarm.began);
    line.suspend(|| {
        let path_ms = path.as_secs_f64() * 1000.0;
        say(&format!("  on the dispatcher's stream {path_ms:.1} ms after the fault, committed"));
    });

    let trapping = simulator::fleet::terminal_name(PREFIX, TRAPPING);
    line.suspend(|| {
        say(&format!(
            "{trapping}: the brake will fall in between two floors as soon as the car runs with people"
        ));
    });
    fleet
        .inject(TRAPPING, Fault::new(FaultKind::EntrapmentBetweenFloors).with_device_code().until_released());
    let waiting = dispatcher.raised(&trapping, "entrapment_between_floors");
    let (event, at) = tokio::select! {
        raised = waiting => raised?,
        () = show_counts(fleet, totals, line, cancel) => bail!("interrupted"),
    };
    let now = seen_at(at);
    let stopped =
        fleet.truths().iter().find(|truth| truth.terminal.as_str() == trapping).map(|truth| truth.begin);
    line.suspend(|| -> anyhow::Result<()> {
        say(&format!(
            "the dispatcher sees, {:.1} s after the car stopped and {:.1} ms after the rule decided:",
            stopped.map_or(0.0, |stopped| now.since(stopped).as_secs_f64()),
            now.since(event.at).as_secs_f64() * 1000.0
        ));
        println!("#{} {} {}", event.no.unwrap_or(0), event.at, event.change);
        dispatch::show_alarm(&event.alarm, false)
    })?;
    let alarm_id = event.alarm.id.to_string();
    let (no, _) =
        dispatch::acknowledge(&mut dispatcher.client, &alarm_id, "demo dispatcher", None, "").await?;
    line.suspend(|| say(&format!("acknowledged as #{no}; its re-sending stops")));
    fleet.release(TRAPPING);
    Ok(Seen { entrapment: event.alarm, acknowledged_no: no })
}

/// The wall clock at this instant.
fn seen_at(at: Instant) -> Timestamp {
    Timestamp::from(OffsetDateTime::now_utc()).minus(at.elapsed())
}

/// A dispatch centre: its stream is read by a task, so that nothing waits for the printing.
struct Dispatcher {
    client: dispatch::Client,
    events: mpsc::Receiver<(AlarmEvent, Instant)>,
    raised: Vec<AlarmEvent>,
}

impl Dispatcher {
    async fn connect(server: &str) -> anyhow::Result<Self> {
        let mut client = dispatch::connect(server).await?;
        let request = dispatch::WatchOptions::default().request(None);
        let mut stream = client.watch(request).await?.into_inner();
        // Full: the reader waits, and the server's stream with it.
        let (sender, events) = mpsc::channel(1_000);
        tokio::spawn(async move {
            while let Ok(Some(response)) = stream.message().await {
                let at = Instant::now();
                let Some(watch_response::Message::Event(event)) = response.message else { continue };
                if event.provisional || event.repeated {
                    continue;
                }
                let Ok(event) = AlarmEvent::try_from(event) else { continue };
                if sender.send((event, at)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { client, events, raised: Vec::new() })
    }

    /// Waits for the alarm of `kind` from `terminal`.
    async fn raised(&mut self, terminal: &str, kind: &str) -> anyhow::Result<(AlarmEvent, Instant)> {
        let wanted = async {
            while let Some((event, at)) = self.events.recv().await {
                self.note(&event);
                let alarm = &event.alarm;
                if alarm.terminal_id.as_str() == terminal && alarm.kind.slug() == kind {
                    return Ok((event, at));
                }
            }
            bail!("the alarm stream ended")
        };
        tokio::time::timeout(PATIENCE, wanted)
            .await
            .with_context(|| format!("no {kind} of {terminal} came"))?
    }

    fn note(&mut self, event: &AlarmEvent) {
        if event.change == AlarmChange::Raised {
            self.raised.push(event.clone());
        }
    }

    /// How often an S1 entrapment of this terminal was raised so far. Other lifts may have theirs: who stands
    /// in a car that has crept out of its landing is shut in too, after the 30 s of rule E1.
    fn entrapments(&mut self, terminal: &str) -> usize {
        while let Ok((event, _)) = self.events.try_recv() {
            self.note(&event);
        }
        let trapped = |event: &&AlarmEvent| {
            let alarm = &event.alarm;
            let entrapment = alarm.severity == Severity::S1 && alarm.kind.0.is_entrapment();
            entrapment && alarm.terminal_id.as_str() == terminal
        };
        self.raised.iter().filter(trapped).count()
    }
}

/// Shows the counts until cancelled.
async fn show_counts(fleet: &FleetHandle, totals: &Totals, line: &ProgressBar, cancel: &CancellationToken) {
    loop {
        show(fleet, totals, line);
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
        }
    }
}

fn show(fleet: &FleetHandle, totals: &Totals, line: &ProgressBar) {
    let (sent, seen) = (fleet.counters(), totals.figures());
    line.set_message(format!(
        "{} connected, {} readings sent, {} acknowledged, {} rows committed",
        seen.terminals_connected, sent.items_sent, sent.items_acked, seen.rows_committed
    ));
    line.tick();
}

/// Every acknowledged reading one row; the entrapment raised once.
async fn verdict(
    url: &str,
    report: &FleetReport,
    ledger: &Path,
    seen: &Seen,
    entrapments: usize,
    began: Instant,
) -> anyhow::Result<ExitCode> {
    let database = Database::connect_with(url, StoreConfig::default()).await?;
    let rows = database.reading_count().await?;
    let quarantined = database.counts().await?.quarantined;
    database.close().await;
    let ledger = std::fs::read_to_string(ledger).context("the ledger cannot be read")?;
    let readings: HashSet<_> = ledger.lines().filter(|line| line.ends_with(",telemetry")).collect();
    let acked = readings.len() as i64;
    let checks = [
        (
            format!("{acked} readings acknowledged, {rows} rows, {quarantined} quarantined"),
            acked == rows && acked > 0 && quarantined == 0,
        ),
        (format!("{} messages left without acknowledgement", report.unacked), report.unacked == 0),
        (format!("the entrapment was raised {entrapments} time(s)"), entrapments == 1),
        (
            format!(
                "it is explained by {} and acknowledged as #{}",
                seen.entrapment.evidence.first().map_or("nothing", |line| line.rule.slug()),
                seen.acknowledged_no
            ),
            !seen.entrapment.evidence.is_empty() && seen.acknowledged_no > 0,
        ),
    ];
    println!();
    for (what, holds) in &checks {
        println!("  {} {what}", if *holds { "ok    " } else { "FAILED" });
    }
    let good = checks.iter().all(|(_, holds)| *holds);
    println!("{} in {:.0} s", if good { "PASSED" } else { "FAILED" }, began.elapsed().as_secs_f64());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(what: &str) {
    if std::io::stdout().is_terminal() {
        println!("\x1b[1m{what}\x1b[0m");
    } else {
        println!("{what}");
    }
}
