//! What a user sends after the head, whichever version of HTTP brings it.

use std::pin::Pin;

use bytes::Bytes;
use http_body::Body;
use http_body_util::Either;
use hyper::body::Incoming;

/// Of HTTP/1 and HTTP/2 as the library has it; of HTTP/3 as `entrance` reads it.
pub(crate) type UserBody = Either<Incoming, Pin<Box<dyn Body<Data = Bytes, Error = BrokenBody> + Send>>>;

pub(crate) type BrokenBody = Box<dyn std::error::Error + Send + Sync>;
