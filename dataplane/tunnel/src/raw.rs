//! An exchange after its protocol was switched: raw bytes both ways.

use std::{future::poll_fn, io, pin::Pin, time::Duration};

use bytes::BytesMut;
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::exchange::{Download, Upload};

/// How long one direction may outlive the other.
pub const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub into_tunnel: u64,
    pub out_of_tunnel: u64,
}

/// Until both directions have ended well, one has failed, or one has ended and
/// the other does not follow. `moved` is right at any time, also when dropped.
pub async fn both_ways(
    io: impl AsyncRead + AsyncWrite,
    upload: &mut Upload,
    download: Download,
    moved: &mut Moved,
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
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let read = reader.read_buf(&mut buffer).await?;
        if read == 0 {
            return upload.finish().map_err(io::Error::other);
        }
        *count += read as u64;
        upload.send(buffer.split().freeze()).await.map_err(io::Error::other)?;
    }
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
