//! Syslog: RFC 5424 messages over TCP, framed by octet counting (RFC 6587, 3.4.1).
//!
//! Choices. Syslog has no acknowledgement: a batch counts as delivered when the
//! system has taken it and the receiver has not closed the connection. Whoever
//! kills a receiver may lose what was on its way; a receiver that ends in order
//! loses nothing, since a connection it closed is noticed before the next batch.
//! No byte-order mark, which JSON readers trip over. No structured data: that
//! needs a registered enterprise number; the id is in the text.
//!
//! Not here: TLS (RFC 5425). Use it on this machine, or in a network of your own.

use std::{fmt::Write, io, time::Duration};

use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Line, Outcome, SendError};
use crate::record::Severity;

/// Connecting, and writing a batch.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// For the receiver to read to the end when we stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the news that the receiver has closed.
const CLOSED_LOOK: Duration = Duration::from_millis(2);
/// Receivers cut longer messages, or take the rest of one for the next:
/// rsyslog leaves octet counting above 200,000 bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Facility "log audit".
const FACILITY: u8 = 13;

pub(crate) struct SyslogSink {
    address: String,
    connection: Option<TcpStream>,
}

impl SyslogSink {
    pub(super) fn new(address: String) -> Self {
        Self { address, connection: None }
    }

    pub(super) async fn send(&mut self, batch: &[Line]) -> Outcome {
        let mut frames = String::new();
        for line in batch {
            let message = message(line);
            if message.len() > MESSAGE_BYTES_MAX {
                return Outcome::Refused("the message is longer than syslog receivers take");
            }
            // Writing into a String does not fail.
            let _written = write!(frames, "{} {message}", message.len());
        }
        let sent = timeout(SEND_TIMEOUT, self.write(frames.as_bytes())).await;
        match sent.unwrap_or_else(|late| Err(io::Error::new(io::ErrorKind::TimedOut, late))) {
            Ok(()) => Outcome::Accepted,
            Err(source) => {
                // Half a frame may be on it.
                self.connection = None;
                Outcome::Retry(SendError { attempted: "sending to", target: self.address.clone(), source })
            }
        }
    }

    pub(super) async fn close(self) {
        let Some(mut connection) = self.connection else { return };
        let to_the_end = async {
            connection.shutdown().await?;
            tokio::io::copy(&mut connection, &mut tokio::io::sink()).await
        };
        // However it ends: what was not read is sent again with the same ids.
        let _closed = timeout(CLOSE_TIMEOUT, to_the_end).await;
    }

    async fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        if let Some(mut connection) = self.connection.take()
            && still_open(&mut connection).await.is_ok()
        {
            self.connection = Some(connection);
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(TcpStream::connect(&self.address).await?),
        };
        connection.write_all(frames).await?;
        still_open(connection).await
    }
}

async fn still_open(connection: &mut TcpStream) -> io::Result<()> {
    let mut said = [0; 256];
    match timeout(CLOSED_LOOK, connection.read(&mut said)).await {
        Ok(Ok(0)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the receiver closed the connection")),
        // Nothing to hear is the rule; what a receiver says has no meaning.
        Ok(Ok(_)) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(error),
    }
}

/// `<PRI>1 TIME HOST APP PROCID MSGID SD MSG`.
fn message(line: &Line) -> String {
    let severity = match line.severity {
        Severity::Information => 6,
        Severity::Low => 5,
        Severity::Medium => 4,
    };
    let priority = FACILITY * 8 + severity;
    let time = Timestamp::from_millisecond(line.time_ms).unwrap_or_default();
    format!("<{priority}>1 {time:.3} - postern - {} - {}", line.kind, line.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_rfc_5424_says() {
        let (id, text) = ("e1".to_owned(), "{\"a\":1}".to_owned());
        let line = Line { id, kind: "sign_in", severity: Severity::Medium, time_ms: 1_700_000_000_007, text };
        assert_eq!(message(&line), "<108>1 2023-11-14T22:13:20.007Z - postern - sign_in - {\"a\":1}");
    }
}
