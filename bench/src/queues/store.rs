//! Threads with a queue each; a caller waits for a future.

use std::collections::hash_map::RandomState;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bytes::Bytes;
use inflightkv_core::{
    Command, Conditions, Draft, DraftValue, Entry, Operation, Outcome, Partition, PutExpiry,
    Sequence, hash_key, routing,
};
use tokio::sync::oneshot;

use crate::error::Error;

/// Two to the power of this many partitions: 32, a thread for each.
const LOG2: u32 = 5;
const NOW: u64 = 0;

enum Message {
    Get {
        key: String,
        reply: oneshot::Sender<Option<Bytes>>,
    },
    Put {
        key: String,
        value: Bytes,
        reply: oneshot::Sender<Outcome>,
    },
}

/// A handle to all threads; they end when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Store {
    queues: Vec<Sender<Message>>,
}

impl Store {
    pub(crate) fn start() -> Result<Self, Error> {
        let queues = (0..1 << LOG2).map(|number| {
            let (sender, receiver) = channel();
            thread::Builder::new()
                .name(format!("partition-{number}"))
                .spawn(move || work(&receiver))
                .map_err(Error::io("starting the thread of a partition"))?;
            Ok(sender)
        });
        Ok(Self {
            queues: queues.collect::<Result<_, Error>>()?,
        })
    }

    pub(crate) async fn get(&self, key: String) -> Option<Bytes> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Get { key, reply });
        answer.await.unwrap_or_default()
    }

    /// What came of it; `None` if the partition's thread is gone.
    pub(crate) async fn put(&self, key: String, value: Bytes) -> Option<Outcome> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Put { key, value, reply });
        answer.await.ok()
    }

    fn send(&self, message: Message) {
        let (Message::Get { key, .. } | Message::Put { key, .. }) = &message;
        let number = routing::partition_of(routing::route(key.as_bytes()), LOG2);
        // A thread that is gone drops the message, and with it the other end of the caller's future.
        let _ = self.queues[number].send(message);
    }
}

fn work(queue: &Receiver<Message>) {
    let hasher = RandomState::new();
    let mut partition = Partition::new(hasher.clone());
    let mut sequence = 0;
    for message in queue {
        match message {
            Message::Get { key, reply } => {
                let entry = partition.get(&key, hash_key(&hasher, &key), NOW);
                // Whoever has stopped waiting needs no answer.
                let _ = reply.send(entry.map(|entry| Bytes::copy_from_slice(entry.stored())));
            }
            Message::Put { key, value, reply } => {
                let Ok(draft) = Entry::draft(&Draft {
                    key: &key,
                    value: DraftValue::Copied(&value),
                    media_type: None,
                    crc: crc32fast::hash(&value),
                    expires_at: None,
                    reserve_expiry: false,
                }) else {
                    continue;
                };
                let expiry = PutExpiry::Set;
                let decision = partition.decide(
                    Command {
                        key: &key,
                        hash: hash_key(&hasher, &key),
                        conditions: Conditions::default(),
                        operation: Operation::Put {
                            draft,
                            expiry,
                            compared: None,
                        },
                    },
                    NOW,
                );
                if let Some(mutation) = decision.mutation {
                    sequence += 1;
                    partition.apply(mutation, Sequence::from_raw(sequence));
                }
                let _ = reply.send(decision.outcome);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_found_and_nothing_else() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let store = Store::start().expect("threads");
        runtime.block_on(async {
            for number in 0..100 {
                let value = Bytes::from(number.to_string());
                let outcome = store.put(format!("key {number}"), value).await;
                assert_eq!(outcome, Some(Outcome::Created { version: 0 }));
            }
            for number in 0..100 {
                let found = store.get(format!("key {number}")).await;
                assert_eq!(found, Some(Bytes::from(number.to_string())));
            }
            assert_eq!(store.get("nothing".to_owned()).await, None);
        });
    }
}
