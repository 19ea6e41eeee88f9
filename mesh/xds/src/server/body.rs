//! Which bytes leave, and when: a piece at a time, made when the connection has room for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;

use crate::delta::server::{Chunks, Response};

/// What answers a call with these, one after the other.
pub(super) fn response(responses: mpsc::Receiver<Result<Response, Status>>) -> http::Response<Body> {
    let mut response = http::Response::new(Body::new(Outgoing { responses, chunks: None, ended: false }));
    response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    response
}

struct Outgoing {
    responses: mpsc::Receiver<Result<Response, Status>>,
    chunks: Option<Chunks>,
    ended: bool,
}

impl tonic::codegen::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.chunks.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            self.chunks = None;
            if self.ended {
                return Poll::Ready(None);
            }
            let end = match ready!(self.responses.poll_recv(cx)) {
                Some(Ok(response)) => match response.into_chunks() {
                    Ok(chunks) => {
                        self.chunks = Some(chunks);
                        continue;
                    }
                    Err(length) => {
                        Status::out_of_range(format!("a response of {length} bytes is more than gRPC can say"))
                    }
                },
                Some(Err(status)) => status,
                None => Status::new(tonic::Code::Ok, ""),
            };
            self.ended = true;
            self.responses.close();
            let mut trailers = HeaderMap::new();
            end.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
    }
}
