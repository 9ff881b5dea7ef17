//! The client's end of a connection: a socket, or TLS on one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
#[cfg(feature = "tls")]
use std::sync::Arc;

/// How connections begin.
#[derive(Debug, Clone)]
pub(crate) enum Security {
    Plain,
    #[cfg(feature = "tls")]
    Tls(Arc<rustls::ClientConfig>),
}

impl Security {
    /// TLS that trusts the authorities of a file in PEM.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    #[cfg(feature = "tls")]
    pub(crate) fn trusting(ca: &Path) -> Result<Self, String> {
        let config = crate::trust::client_config(ca).map_err(|error| error.to_string())?;
        Ok(Self::Tls(Arc::new(config)))
    }

    /// This build has no TLS.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "tls"))]
    pub(crate) fn trusting(_: &Path) -> Result<Self, String> {
        Err(
            "url: found https in a build without TLS; expected one with the feature `tls`"
                .to_owned(),
        )
    }

    /// Begins on a connected socket.
    pub(crate) fn begin(&self, stream: TcpStream, host: &str) -> io::Result<Wire> {
        match self {
            Self::Plain => Ok(Wire::Plain(stream)),
            #[cfg(feature = "tls")]
            Self::Tls(config) => {
                let name = rustls::pki_types::ServerName::try_from(host.to_owned())
                    .map_err(io::Error::other)?;
                let connection = rustls::ClientConnection::new(Arc::clone(config), name)
                    .map_err(io::Error::other)?;
                let stream = rustls::StreamOwned::new(connection, stream);
                Ok(Wire::Tls(Box::new(stream)))
            }
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.flush(),
        }
    }
}
