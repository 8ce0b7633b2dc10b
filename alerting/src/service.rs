//! The gRPC service of the dispatch centres: `liftwatch.dispatch.v1`, health and reflection.
//!
//! Promises what the `.proto` file says. Checks every request before it reaches the store, and tells the way
//! out in each refusal. Knows no rules and writes nothing but acknowledgements.

mod request;
mod watch;

use std::pin::Pin;
use std::time::Duration;

use domain::{AlarmEvent, Timestamp};
use futures_util::Stream;
use proto::dispatch::v1;
use proto::dispatch::v1::dispatch_service_server::{DispatchService, DispatchServiceServer};
use store::{AcknowledgeError, Acknowledgement, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tracing::{error, warn};

use crate::config::STORE_TIMEOUT;
use crate::{Clock, Streams};

/// Bytes of a request: an acknowledgement with a long note is 9 KB.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Calls and streams on one connection.
const STREAMS_PER_CONNECTION: u32 = 256;

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener or the protocol.
    #[error("the dispatch service failed")]
    Transport(#[from] tonic::transport::Error),
    /// The reflection service could not read its descriptions.
    #[error("the descriptions for reflection cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves dispatch centres on `listener` until `stop`. Then open streams end with UNAVAILABLE, so that their
/// clients resume elsewhere, calls under way are finished, and whatever still holds on is left behind.
pub async fn serve(
    listener: TcpListener,
    streams: Streams,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let config = streams.config().clone();
    let (health, health_service) = tonic_health::server::health_reporter();
    let service = DispatchServiceServer::new(Service { streams, clock, stop: stop.clone() })
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    health.set_serving::<DispatchServiceServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let leave = {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            health.set_not_serving::<DispatchServiceServer<Service>>().await;
        }
    };
    let served = Server::builder()
        .http2_keepalive_interval(Some(config.keepalive_every))
        .http2_keepalive_timeout(Some(config.keepalive_every))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .add_service(service)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, leave);
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(config.stop_within).await;
    };
    tokio::select! {
        served = served => Ok(served?),
        () = deadline => {
            warn!("dispatch clients did not take leave in time");
            Ok(())
        }
    }
}

struct Service {
    streams: Streams,
    clock: Clock,
    stop: CancellationToken,
}

/// What a failure of the store is to a client. The rest is for the log.
fn store_status(failure: &StoreError) -> Status {
    if failure.mendable() {
        return Status::unavailable("the database is away: try again, with the same idempotency key if any");
    }
    error!(error = failure as &dyn std::error::Error, "the store refused a dispatch call");
    Status::internal("the store refused; the server's log says why")
}

/// No call waits longer than this for the database.
async fn in_time<T, E: From<StoreError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let late = |_| Err(E::from(StoreError::Timeout(STORE_TIMEOUT)));
    tokio::time::timeout(STORE_TIMEOUT, work).await.unwrap_or_else(late)
}

#[tonic::async_trait]
impl DispatchService for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (resume_after, filter) = request::watch(&request.into_inner())?;
        let stream =
            watch::watch(self.streams.clone(), self.clock.clone(), resume_after, filter, self.stop.clone())
                .ok_or_else(|| {
                let watchers_max = self.streams.config().watchers_max;
                Status::resource_exhausted(format!(
                    "{watchers_max} streams are open: close some, or try again"
                ))
            })?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn acknowledge(
        &self,
        request: Request<v1::AcknowledgeRequest>,
    ) -> Result<Response<v1::AcknowledgeResponse>, Status> {
        let request = request::acknowledge(request.into_inner(), self.clock.now())?;
        // Asked first: an alarm that is committed in between is found.
        let provisional = self.streams.is_alarm_pending(request.alarm_id);
        match in_time(self.streams.database().alarm_acknowledge(&request)).await {
            Ok(result) => {
                self.streams.metrics().acknowledged.inc();
                self.streams.hint();
                let alarm = Some(v1::Alarm::from(&result.alarm));
                Ok(Response::new(v1::AcknowledgeResponse { no: result.no, alarm }))
            }
            Err(failure) => Err(acknowledge_status(failure, &request, provisional)),
        }
    }

    async fn get_alarm(
        &self,
        request: Request<v1::GetAlarmRequest>,
    ) -> Result<Response<v1::GetAlarmResponse>, Status> {
        let id = request::alarm_id(&request.into_inner().alarm_id)?;
        let provisional = self.streams.is_alarm_pending(id);
        let found = in_time(self.streams.database().alarm_get(id)).await;
        let Some(record) = found.map_err(|failure| store_status(&failure))? else {
            return Err(not_found(id, provisional));
        };
        let events = record.events.iter().map(|event: &AlarmEvent| proto::alarm::event(event, 0)).collect();
        let evidence = record.evidence.map(|evidence| v1::Evidence {
            json: evidence.json,
            sha256: evidence.sha256,
            sealed_us: evidence.sealed.micros(),
        });
        Ok(Response::new(v1::GetAlarmResponse {
            alarm: Some(v1::Alarm::from(&record.alarm)),
            events,
            evidence,
        }))
    }

    async fn list_alarms(
        &self,
        request: Request<v1::ListAlarmsRequest>,
    ) -> Result<Response<v1::ListAlarmsResponse>, Status> {
        let (filter, after, page_size) = request::list(&request.into_inner())?;
        // One more than asked for tells whether there is another page.
        let found = in_time(self.streams.database().alarm_list(&filter, after, page_size + 1)).await;
        let mut alarms = found.map_err(|failure| store_status(&failure))?;
        let more = alarms.len() > page_size as usize;
        alarms.truncate(page_size as usize);
        let next_page_token = match alarms.last() {
            Some(last) if more => request::page_token(last),
            _ => String::new(),
        };
        let alarms = alarms.iter().map(v1::Alarm::from).collect();
        Ok(Response::new(v1::ListAlarmsResponse { alarms, next_page_token }))
    }
}

fn not_found(id: domain::AlarmId, provisional: bool) -> Status {
    if provisional {
        return Status::unavailable(format!(
            "alarm {id} is provisional, the database is away: try again, with the same idempotency key if any"
        ));
    }
    Status::not_found(format!("no alarm {id}: Watch and ListAlarms give the ids there are"))
}

fn acknowledge_status(failure: AcknowledgeError, request: &Acknowledgement, provisional: bool) -> Status {
    match failure {
        AcknowledgeError::NotFound(id) => not_found(id, provisional),
        AcknowledgeError::KeyReused(other) => Status::already_exists(format!(
            "idempotency_key '{}' was used for alarm {other}: choose a new one for every alarm",
            request.idempotency_key
        )),
        AcknowledgeError::Store(failure) => store_status(&failure),
    }
}

/// A heartbeat.
fn heartbeat(no: i64, at: Timestamp) -> v1::WatchResponse {
    let beat = v1::Heartbeat { no, at_us: at.micros() };
    v1::WatchResponse { message: Some(v1::watch_response::Message::Heartbeat(beat)) }
}

/// The age from which an unacknowledged S1 is told again: nearly the pace, since timers are not exact.
fn repeat_age(pace: Duration) -> Duration {
    pace.mul_f32(0.9)
}
