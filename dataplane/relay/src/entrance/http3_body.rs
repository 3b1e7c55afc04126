//! The body of a user's HTTP/3 request, held to the length its head gave.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::{error::Code, server::RequestStream};
use http::{Request, header};
use http_body::{Body as HttpBody, Frame};

use crate::{entrance::http3_gate::Gated, forward::user_body::BrokenBody};

pub(crate) type Receiving = RequestStream<Gated<h3_quinn::RecvStream>, Bytes>;

/// What a user sends, held to the length they said (RFC 9114, section 4.1.2).
pub(crate) struct Http3Body {
    receiving: Receiving,
    /// What came with the head.
    first: Option<Result<Bytes, BrokenBody>>,
    /// Bytes still to come, where a length was given.
    left: Option<u64>,
    ended: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the body has another length than Content-Length")]
struct OtherLength;

impl Http3Body {
    /// Looks whether anything follows the head: the library does not say so.
    pub(crate) async fn begin(request: &Request<()>, receiving: Receiving) -> Self {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let left = length.and_then(|it| it.to_str().ok()).and_then(|it| it.parse().ok());
        let mut body = Self { receiving, first: None, left, ended: false };
        std::future::poll_fn(|context| {
            if let Poll::Ready(first) = body.poll_data(context) {
                body.first = first.transpose();
            }
            Poll::Ready(())
        })
        .await;
        body
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BrokenBody>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(first.map(Some));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let data = ready!(self.receiving.poll_recv_data(context))?.map(|mut it| it.copy_to_bytes(it.remaining()));
        let taken = data.as_ref().map_or(0, |it| it.len() as u64);
        self.ended = data.is_none();
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(taken).filter(|left| !self.ended || *left == 0).ok_or(OtherLength)?;
        }
        Poll::Ready(Ok(data))
    }
}

impl Drop for Http3Body {
    fn drop(&mut self) {
        if !self.ended {
            // The answer needs no more of it (RFC 9114, section 4.1).
            self.receiving.stop_sending(Code::H3_NO_ERROR);
        }
    }
}

impl HttpBody for Http3Body {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Trailers of users are not forwarded: nobody judged them.
        let data = ready!(self.poll_data(context)).transpose();
        Poll::Ready(data.map(|it| it.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.first.is_none()
    }
}
