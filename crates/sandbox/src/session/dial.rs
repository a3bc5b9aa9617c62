//! A connection to a port inside.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hand::wire::{Event, Request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Reader, Stream, Writer};
use super::{Error, Result, Session};

impl Session {
    /// Connects to a port on the loopback inside.
    ///
    /// # Errors
    /// `NotFound` where nothing listens there.
    pub async fn dial(&self, port: u16) -> Result<Connection> {
        let mut stream = self.mux.open_stream(&Request::Dial { port })?;
        match stream.event().await {
            Ok(Event::Connected) => {}
            Ok(_) | Err(Ok(_)) => return Err(Error::Protocol("it does not say that the connection stands")),
            Err(Err(error)) => return Err(error),
        }
        let reader = stream.stdout.take().ok_or(Error::Closed)?;
        Ok(Connection { reader, writer: stream.writer(), _stream: stream })
    }
}

/// A connection to a port inside. Dropped it is closed.
#[derive(Debug)]
pub struct Connection {
    reader: Reader,
    writer: Writer,
    _stream: Stream,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
