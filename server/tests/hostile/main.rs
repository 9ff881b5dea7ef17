//! Clients that are slow, broken or hostile, on raw sockets: each gets a clear answer or a closed connection, costs a
//! bounded amount of memory, changes nothing by half, and does not disturb anybody else.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod connections;
mod fairness;
mod framing;
mod heads;
mod http2;
mod known_mistakes;
mod random;

use support::{Answer, Server};

/// Another client, who has done nothing wrong.
fn still_serves(server: &Server) {
    let mut client = server.connect();
    let stored = client.ask("PUT /v1/kv/bystander", "{\"all\":\"well\"}");
    assert!(matches!(stored.status, 201 | 204), "{stored:?}");
    assert_eq!(
        client.ask("GET /v1/kv/bystander", "").text(),
        "{\"all\":\"well\"}"
    );
}

/// Sends bytes on a connection of their own, says that no more is coming, and reads what is answered until the server
/// closes.
fn all_answers(server: &Server, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
    let mut client = server.connect();
    // The server may have closed before it has read everything: that is an answer too.
    let _ = client.send(bytes);
    client.end();
    std::iter::from_fn(|| client.answer(false)).collect()
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}
