//! Requests of dispatch centres, checked. Each refusal names the field and what it should hold.

use domain::{Alarm, AlarmId, Area, ElevatorId, Timestamp};
use proto::dispatch::v1;
use store::{Acknowledgement, AlarmCursor, AlarmFilter};
use tonic::Status;

/// Regions in one request: a province has a dozen cities, a city a dozen counties.
const AREAS_MAX: usize = 256;
const TEXT_MAX: usize = 100;
const NOTE_MAX: usize = 2_000;
const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 500;

pub(super) fn watch(request: &v1::WatchRequest) -> Result<(Option<i64>, AlarmFilter), Status> {
    if let Some(no) = request.resume_after.filter(|no| *no < 0) {
        return Err(Status::invalid_argument(format!(
            "resume_after is {no}: give the last number handled, or leave it out for a snapshot"
        )));
    }
    let filter = AlarmFilter {
        areas: areas(&request.areas)?,
        severity_min: severity(request.severity_min)?,
        ..AlarmFilter::default()
    };
    Ok((request.resume_after, filter))
}

pub(super) fn acknowledge(request: v1::AcknowledgeRequest, at: Timestamp) -> Result<Acknowledgement, Status> {
    let alarm_id = alarm_id(&request.alarm_id)?;
    name("actor", &request.actor)?;
    name("idempotency_key", &request.idempotency_key)?;
    let unprintable = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    if request.note.chars().count() > NOTE_MAX || request.note.chars().any(unprintable) {
        return Err(Status::invalid_argument(format!(
            "note holds at most {NOTE_MAX} characters and no control characters but tab and newline"
        )));
    }
    let (actor, idempotency_key, note) = (request.actor, request.idempotency_key, request.note);
    Ok(Acknowledgement { alarm_id, actor, idempotency_key, note, at })
}

pub(super) fn list(
    request: &v1::ListAlarmsRequest,
) -> Result<(AlarmFilter, Option<AlarmCursor>, u32), Status> {
    let filter = AlarmFilter {
        areas: areas(&request.areas)?,
        severity_min: severity(request.severity_min)?,
        open_only: request.open_only,
        elevator_id: request.elevator_id.map(ElevatorId),
    };
    let page_size = match request.page_size {
        0 => PAGE_DEFAULT,
        size @ 1..=PAGE_MAX => size,
        size => {
            return Err(Status::invalid_argument(format!("page_size is {size}: 1 to {PAGE_MAX} are given")));
        }
    };
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(cursor(token).ok_or_else(|| {
            Status::invalid_argument(
                "page_token is not one of ours: give next_page_token of the answer before",
            )
        })?),
    };
    Ok((filter, after, page_size))
}

/// The place of the next page: after `last`.
pub(super) fn page_token(last: &Alarm) -> String {
    format!("{}.{}", last.raised.micros(), last.id)
}

fn cursor(token: &str) -> Option<AlarmCursor> {
    let (raised, id) = token.split_once('.')?;
    let raised = Timestamp::from_micros(raised.parse().ok()?);
    raised.to_utc()?;
    Some(AlarmCursor { raised, id: proto::alarm::alarm_id(id).ok()? })
}

pub(super) fn alarm_id(text: &str) -> Result<AlarmId, Status> {
    proto::alarm::alarm_id(text).map_err(|error| Status::invalid_argument(format!("alarm_id: {error}")))
}

fn areas(texts: &[String]) -> Result<Vec<Area>, Status> {
    if texts.len() > AREAS_MAX {
        let count = texts.len();
        return Err(Status::invalid_argument(format!(
            "{count} areas: at most {AREAS_MAX}; a region such as 350000 covers its own"
        )));
    }
    let area = |text: &String| {
        text.parse().map_err(|error| {
            let shown: String = text.chars().take(20).collect();
            Status::invalid_argument(format!("areas: '{}': {error}", shown.escape_debug()))
        })
    };
    texts.iter().map(area).collect()
}

fn severity(number: i32) -> Result<Option<domain::Severity>, Status> {
    proto::alarm::severity(number).map_err(|_| {
        Status::invalid_argument(format!("severity_min is {number}: 1 (S1) to 4 (S4), or 0 for all"))
    })
}

fn name(field: &str, text: &str) -> Result<(), Status> {
    let fits = (1..=TEXT_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("{field} is 1 to {TEXT_MAX} characters, no control characters")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "18081f82-f75c-55a7-bc4c-e282e51ede82";

    fn refused<T: std::fmt::Debug>(result: Result<T, Status>, field: &str) {
        let status = result.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(field), "{}", status.message());
    }

    #[test]
    fn hostile_watches_are_refused_by_field() {
        let good = v1::WatchRequest { areas: vec!["350100".into()], severity_min: 2, ..Default::default() };
        assert!(watch(&good).is_ok_and(|(no, filter)| no.is_none() && filter.areas.len() == 1));
        refused(watch(&v1::WatchRequest { resume_after: Some(-1), ..good.clone() }), "resume_after");
        refused(watch(&v1::WatchRequest { severity_min: 5, ..good.clone() }), "severity_min");
        refused(watch(&v1::WatchRequest { areas: vec!["35\0\u{1b}[31m".into()], ..good.clone() }), "areas");
        refused(watch(&v1::WatchRequest { areas: vec!["350100".into(); 257], ..good }), "areas");
    }

    #[test]
    fn hostile_acknowledgements_are_refused_by_field() {
        let good = v1::AcknowledgeRequest {
            alarm_id: ID.into(),
            actor: "值班员 4".into(),
            idempotency_key: "k".into(),
            note: "on it\nsoon".into(),
        };
        let at = Timestamp::from_micros(1);
        assert!(acknowledge(good.clone(), at).is_ok());
        let bad = |change: fn(&mut v1::AcknowledgeRequest), field| {
            let mut request = good.clone();
            change(&mut request);
            refused(acknowledge(request, at), field);
        };
        bad(|request| request.alarm_id = "7".into(), "alarm_id");
        bad(|request| request.actor.clear(), "actor");
        bad(|request| request.actor = "x".repeat(101), "actor");
        bad(|request| request.actor = "a\0".into(), "actor");
        bad(|request| request.idempotency_key.clear(), "idempotency_key");
        bad(|request| request.note = "\0".into(), "note");
        bad(|request| request.note = "x".repeat(2_001), "note");
    }

    #[test]
    fn hostile_lists_are_refused_by_field() {
        refused(list(&v1::ListAlarmsRequest { page_size: 501, ..Default::default() }), "page_size");
        for token in ["x", "1", "1.x", &format!(".{ID}"), &format!("99999999999999999999.{ID}"), "'; DROP--"]
        {
            refused(
                list(&v1::ListAlarmsRequest { page_token: token.into(), ..Default::default() }),
                "page_token",
            );
        }
        let (_, after, size) = list(&v1::ListAlarmsRequest::default()).unwrap();
        assert_eq!((after, size), (None, 100));
    }

    proptest! {
        #[test]
        fn tokens_round_trip(raised in -1_000_000_000_000_000_i64..10_000_000_000_000_000) {
            let mut alarm = crate::testing::event(1).alarm;
            alarm.raised = Timestamp::from_micros(raised);
            let read = cursor(&page_token(&alarm));
            prop_assert_eq!(read, Some(AlarmCursor { raised: alarm.raised, id: alarm.id }));
        }

        #[test]
        fn no_token_panics(token in ".{0,60}") {
            let _ = cursor(&token);
        }
    }
}
