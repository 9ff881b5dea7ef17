//! A tokio stream as hyper's I/O traits, without unsafe code.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What one read takes at most; hyper starts with the same.
const SCRATCH_BYTES: usize = 8 << 10;

/// hyper's read buffer is uninitialised memory, which safe code cannot hand to tokio; so bytes go through a
/// buffer of this connection. Copying a request of a hundred bytes costs a few nanoseconds.
pub(crate) struct HyperIo {
    stream: TcpStream,
    scratch: Box<[u8]>,
}

impl HyperIo {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            scratch: vec![0; SCRATCH_BYTES].into(),
        }
    }
}

impl Read for HyperIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let len = this.scratch.len().min(out.remaining());
        // Through the trait and not `try_read`: after a short read it knows that the socket is empty and saves
        // the system call that would say so.
        let mut scratch = ReadBuf::new(&mut this.scratch[..len]);
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut scratch))?;
        out.put_slice(scratch.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for HyperIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }
}
