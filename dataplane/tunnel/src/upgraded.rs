//! An exchange after its protocol was switched: raw bytes both ways.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use crate::exchange::{Download, Upload};

/// How long one direction may outlive the other.
pub const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 32 * 1024;

thread_local! {
    /// What is read goes through here: a connection that is silent, as most
    /// WebSockets are most of the time, holds no buffer of its own.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Bytes of an upgraded connection, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteCounts {
    pub into_tunnel: u64,
    pub out_of_tunnel: u64,
}

/// Until both directions have ended well, one has failed, or one has ended and
/// the other does not follow. `moved` is right at any time, also when dropped.
pub async fn both_ways(
    io: impl AsyncRead + AsyncWrite,
    upload: &mut Upload,
    download: Download,
    moved: &mut ByteCounts,
) -> io::Result<()> {
    let (reader, writer) = tokio::io::split(io);
    let mut into_tunnel = std::pin::pin!(into_tunnel(reader, upload, &mut moved.into_tunnel));
    let mut out_of_tunnel = std::pin::pin!(out_of_tunnel(writer, download, &mut moved.out_of_tunnel));
    let rest = tokio::select! {
        ended = &mut into_tunnel => {
            ended?;
            timeout(HALF_CLOSED_TIMEOUT, out_of_tunnel).await
        }
        ended = &mut out_of_tunnel => {
            ended?;
            timeout(HALF_CLOSED_TIMEOUT, into_tunnel).await
        }
    };
    rest.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn into_tunnel(mut reader: impl AsyncRead + Unpin, upload: &mut Upload, count: &mut u64) -> io::Result<()> {
    loop {
        let bytes = poll_fn(|context| poll_read(&mut reader, context)).await?;
        if bytes.is_empty() {
            return upload.finish().map_err(io::Error::other);
        }
        *count += bytes.len() as u64;
        upload.send(bytes).await.map_err(io::Error::other)?;
    }
}

fn poll_read(reader: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(reader).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
}

async fn out_of_tunnel(mut writer: impl AsyncWrite + Unpin, mut download: Download, count: &mut u64) -> io::Result<()> {
    while let Some(frame) = poll_fn(|context| Pin::new(&mut download).poll_frame(context)).await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            *count += data.len() as u64;
            writer.write_all(&data).await?;
            writer.flush().await?;
        }
    }
    writer.shutdown().await
}
