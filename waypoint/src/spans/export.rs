//! One call of a collector: OTLP over gRPC, through the mesh as any request.

use std::fmt::Display;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use mesh_model::trace::otlp;
use mesh_model::traffic::outlier::{Outcome, status_of_grpc};
use mesh_proxy::local_workload::deadline;

use super::Collector;
use crate::body::Body;
use crate::http::dialled;
use crate::serving::Worker;
use crate::upstream::{self, HttpVersion, Limit};

/// Bytes of an answer that are read: it is a number and a sentence.
const MOST_ANSWER: usize = 64 << 10;

/// Why a collector has not taken spans.
pub(super) struct Failed {
    /// In words.
    pub(super) why: String,
    /// It may take them later.
    pub(super) passes: bool,
}

impl Failed {
    fn passing(why: impl Display) -> Self {
        Self { why: why.to_string(), passes: true }
    }
}

/// Sends a message, which [`otlp::request`] has made. Gives how many of its spans the collector does not want, and why, if any.
pub(super) async fn export(
    worker: &Rc<Worker>,
    (service, port): &Collector,
    message: Bytes,
) -> Result<Option<(u64, String)>, Failed> {
    let proxy = &worker.context.proxy;
    let waypoint = proxy.local_workload(&worker.pod.info, deadline()).await.map_err(Failed::passing)?;
    let found = proxy.tables.read(|tables| tables.service(service).cloned());
    let found = found.ok_or_else(|| Failed::passing(format!("there is no service {service}")))?;
    let at = dialled(&found, *port, true);
    let picked = upstream::choose(worker, &waypoint, (&found, at, None), |_| None, None);
    let picked = picked.await.map_err(Failed::passing)?;
    let _permit = picked.take(worker, Limit::Requests).map_err(Failed::passing)?;
    let _active = picked.active();
    let request = request(&format!("{}:{port}", found.hostname), message).map_err(Failed::passing)?;
    let mut pooled = match upstream::acquire(worker, &waypoint, &picked, &picked.key(HttpVersion::Http2)).await {
        Ok(pooled) => pooled,
        Err(error) => {
            if let Some(outcome) = error.outcome() {
                picked.ended(outcome);
            }
            return Err(Failed::passing(error));
        }
    };
    let answer = pooled.connection.send(request).await.map_err(|failed| {
        picked.ended(Outcome::Failed);
        Failed::passing(failed)
    })?;
    let (head, body) = answer.into_parts();
    let body =
        Limited::new(body, MOST_ANSWER).collect().await.map_err(|error| Failed::passing(format!("answer: {error}")))?;
    let status = status(&head.headers).or_else(|| status(body.trailers()?));
    let counts = status.as_ref().map_or(head.status.as_u16(), |(status, _)| status_of_grpc(*status));
    picked.ended(Outcome::Answered(counts));
    match (head.status, status) {
        (StatusCode::OK, Some((0, _))) => Ok(body.to_bytes().get(5..).and_then(otlp::rejected)),
        // The codes of which OTLP says that they may pass.
        (StatusCode::OK, Some((code, why))) => Err(Failed {
            why: format!("grpc-status {code} {why}"),
            passes: matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15),
        }),
        (StatusCode::OK, None) => Err(Failed { why: "it answers as no gRPC server does".to_owned(), passes: false }),
        (status, _) => Err(Failed { why: format!("HTTP status {status}"), passes: status.is_server_error() }),
    }
}

/// What gRPC says of the call.
fn status(headers: &HeaderMap) -> Option<(u8, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let why = headers.get("grpc-message").and_then(|why| why.to_str().ok()).unwrap_or_default();
    Some((code, why.chars().take(200).collect()))
}

fn request(authority: &str, message: Bytes) -> http::Result<Request<Body>> {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    // Not compressed. 512 spans with all that strangers can write into them are far below 4 GiB.
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(&message);
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(otlp::EXPORT).build()?;
    Request::post(uri)
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
        .header(USER_AGENT, HeaderValue::from_static(concat!("ambit-waypoint/", env!("CARGO_PKG_VERSION"))))
        .body(Body::whole(framed.freeze()))
}
