//! Tells a service manager how a start goes (`sd_notify(3)`): a datagram to the socket that it names.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that names the socket, set by the manager when it wants to be told.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells the manager, if there is one, that the store serves. What goes wrong is told in the log: the server runs all
/// the same, and the manager has its own patience.
pub(crate) fn ready() {
    if let Err(error) = send("READY=1\nSTATUS=Serving requests") {
        tracing::warn!(%error, "the service manager could not be told that the server is ready");
    }
}

fn send(state: &str) -> io::Result<()> {
    let Some(name) = env::var_os(SOCKET) else {
        return Ok(());
    };
    // An `@` stands for the zero byte that begins a name outside the file system.
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
