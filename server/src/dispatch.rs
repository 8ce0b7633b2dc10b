//! `liftwatch dispatch`: the alarm stream as a dispatch centre sees it, at a terminal or for a script.

use std::time::Duration;

use anyhow::{Context, bail};
use domain::{Alarm, AlarmEvent, Area, Severity, Timestamp};
use proto::dispatch::v1::dispatch_service_client::DispatchServiceClient;
use proto::dispatch::v1::{self, watch_response};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// A client of the dispatch API.
pub(crate) type Client = DispatchServiceClient<Channel>;

/// Pause before connecting again; the stream loses nothing meanwhile.
const RECONNECT: Duration = Duration::from_secs(1);

/// Connects to `server` (`host:port`).
pub(crate) async fn connect(server: &str) -> anyhow::Result<Client> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))
        .with_context(|| format!("'{server}' is not an address: write host:port"))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.with_context(|| {
        format!("no dispatch API answers at {server}: start one with 'liftwatch serve --dev', or name it with --server")
    })?;
    Ok(DispatchServiceClient::new(channel))
}

/// What to watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchOptions {
    pub(crate) resume_after: Option<i64>,
    pub(crate) areas: Vec<Area>,
    pub(crate) severity_min: Option<Severity>,
    pub(crate) json: bool,
    pub(crate) count: Option<u64>,
}

impl WatchOptions {
    /// The request that continues after `resume_after`.
    pub(crate) fn request(&self, resume_after: Option<i64>) -> v1::WatchRequest {
        v1::WatchRequest {
            resume_after,
            areas: self.areas.iter().map(ToString::to_string).collect(),
            severity_min: self.severity_min.map_or(0, |severity| i32::from(severity.number())),
        }
    }
}

/// Prints the stream until cancelled; reconnects and resumes after the last number seen.
pub(crate) async fn watch(
    server: &str,
    options: WatchOptions,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut resume_after = options.resume_after;
    let mut left = options.count.unwrap_or(u64::MAX);
    let mut client = connect(server).await?;
    while left > 0 {
        let cut = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            cut = follow(&mut client, &options, &mut resume_after, &mut left) => cut,
        };
        let Err(error) = cut else { continue };
        if let Some(status) = error.downcast_ref::<tonic::Status>()
            && matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::InvalidArgument)
        {
            bail!("{}", status.message());
        }
        eprintln!("the stream was cut ({error:#}); resuming after {}", resume_after.unwrap_or(0));
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(RECONNECT) => {}
        }
    }
    Ok(())
}

async fn follow(
    client: &mut Client,
    options: &WatchOptions,
    resume_after: &mut Option<i64>,
    left: &mut u64,
) -> anyhow::Result<()> {
    let mut stream = client.watch(options.request(*resume_after)).await?.into_inner();
    while *left > 0 {
        let Some(response) = stream.message().await? else { bail!("the server ended it") };
        match response.message {
            Some(watch_response::Message::Snapshot(snapshot)) => {
                for alarm in snapshot.alarms {
                    show_alarm(&Alarm::try_from(alarm)?, options.json)?;
                }
                // A snapshot may come in parts: only the last one makes it whole.
                if !snapshot.more {
                    *resume_after = Some(snapshot.no);
                }
            }
            Some(watch_response::Message::Event(event)) => {
                let (no, repeated, provisional) = (event.no, event.repeated, event.provisional);
                show_event(&AlarmEvent::try_from(event)?, repeated, options.json)?;
                if !provisional && !repeated {
                    *resume_after = Some(no);
                    *left -= 1;
                }
            }
            // 0: before the snapshot.
            Some(watch_response::Message::Heartbeat(beat)) if beat.no > 0 => *resume_after = Some(beat.no),
            Some(watch_response::Message::Heartbeat(_)) | None => {}
        }
    }
    Ok(())
}

/// An event of the stream, for a script.
#[derive(serde::Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a AlarmEvent,
    /// Not acknowledged, and so offered once more under its number.
    repeated: bool,
}

fn show_event(event: &AlarmEvent, repeated: bool, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(&Line { event, repeated })?);
        return Ok(());
    }
    let no = event.no.map_or_else(|| "provisional".to_owned(), |no| format!("#{no}"));
    let again = if repeated { " (again: not acknowledged)" } else { "" };
    println!("{no} {} {}{again}", event.at, event.change);
    show_alarm(&event.alarm, false)
}

/// Prints one alarm as a dispatcher reads it.
pub(crate) fn show_alarm(alarm: &Alarm, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(alarm)?);
        return Ok(());
    }
    println!(
        "  {} {} {} ({}), elevator {} in {}, floor {}, {} with score {}",
        alarm.severity,
        alarm.kind.0.chinese,
        alarm.kind.0.english,
        alarm.kind,
        alarm.elevator_id,
        alarm.area,
        alarm.floor.as_deref().unwrap_or("unknown"),
        alarm.state,
        alarm.score,
    );
    println!("  began {}, id {}", alarm.began, alarm.id);
    for line in &alarm.evidence {
        println!("    {} {}: {}", line.at, line.rule.slug().to_uppercase(), line.trace);
    }
    if let Some(actor) = &alarm.acknowledged_by {
        println!("    acknowledged by {actor}");
    }
    Ok(())
}

/// Acknowledges an alarm and says under which number.
pub(crate) async fn acknowledge(
    client: &mut Client,
    alarm_id: &str,
    actor: &str,
    key: Option<String>,
    note: &str,
) -> anyhow::Result<(i64, Alarm)> {
    let request = v1::AcknowledgeRequest {
        alarm_id: alarm_id.to_owned(),
        actor: actor.to_owned(),
        idempotency_key: key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        note: note.to_owned(),
    };
    let answer = client.acknowledge(request).await.map_err(told)?.into_inner();
    let alarm = answer.alarm.context("the server answered without the alarm")?;
    Ok((answer.no, Alarm::try_from(alarm)?))
}

/// Prints the alarms, newest first.
pub(crate) async fn list(client: &mut Client, open_only: bool, json: bool) -> anyhow::Result<()> {
    let mut page_token = String::new();
    loop {
        let request = v1::ListAlarmsRequest { open_only, page_token, ..Default::default() };
        let page = client.list_alarms(request).await.map_err(told)?.into_inner();
        for alarm in page.alarms {
            show_alarm(&Alarm::try_from(alarm)?, json)?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}

/// Prints one alarm with its events and evidence.
pub(crate) async fn show(client: &mut Client, alarm_id: &str) -> anyhow::Result<()> {
    let request = v1::GetAlarmRequest { alarm_id: alarm_id.to_owned() };
    let answer = client.get_alarm(request).await.map_err(told)?.into_inner();
    if let Some(alarm) = answer.alarm {
        show_alarm(&Alarm::try_from(alarm)?, false)?;
    }
    for event in answer.events {
        let event = AlarmEvent::try_from(event)?;
        println!("  #{} {} {} to {}", event.no.unwrap_or(0), event.at, event.change, event.alarm.state);
    }
    match answer.evidence {
        Some(sealed) => {
            println!(
                "  evidence sealed {}, sha256 {}",
                Timestamp::from_micros(sealed.sealed_us),
                sealed.sha256
            );
            println!("{}", sealed.json);
        }
        None => println!("  evidence not sealed yet: it is, from 60 s after the alarm"),
    }
    Ok(())
}

/// A refusal of the server in its own words.
fn told(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{} ({:?})", status.message(), status.code())
}
