//! Whose turn it is to read for long: each client waits among its own first, so that a crowd of one's reads stands before
//! nobody else's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::UserId;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Whom what waits is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// A user, wherever they are.
    User(UserId),
    /// A network, whoever is there.
    Network(IpAddr),
}

/// So few clients are never worth a walk.
const FEW: usize = 64;

/// The turns of one environment.
pub(super) struct ListTurns {
    /// How many of one client stand in the common queue, or have a turn.
    of_one: usize,
    common: Arc<Semaphore>,
    own: Mutex<HashMap<Client, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(super) struct ListTurn {
    _held: Vec<OwnedSemaphorePermit>,
}

impl ListTurns {
    /// Turns of which `at_once`, and one where that is none, are taken at a time; of one client one fewer.
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        let common = Arc::new(Semaphore::new(at_once));
        Self { of_one: at_once.saturating_sub(1).max(1), common, own: Mutex::default() }
    }

    /// Waits for a turn, among those of each of `clients` first.
    ///
    /// # Errors
    /// None today: nobody closes a queue.
    pub async fn take(&self, clients: &[Client]) -> Result<ListTurn, AcquireError> {
        let mut held = Vec::with_capacity(clients.len() + 1);
        for client in clients {
            held.push(self.own(*client).acquire_owned().await?);
        }
        held.push(Arc::clone(&self.common).acquire_owned().await?);
        Ok(ListTurn { _held: held })
    }

    fn own(&self, client: Client) -> Arc<Semaphore> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() >= FEW {
            // Who waits and who has a turn holds the queue too.
            own.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        Arc::clone(own.entry(client).or_insert_with(|| Arc::new(Semaphore::new(self.of_one))))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::FutureExt as _;

    use super::*;

    const fn network(last: u8) -> Client {
        Client::Network(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[tokio::test]
    async fn one_client_leaves_a_turn_to_the_others_whatever_it_calls_itself() {
        let turns = ListTurns::new(2);
        let held = turns.take(&[Client::User(UserId::new()), network(1)]).now_or_never().unwrap().unwrap();
        for _ in 0..16 {
            let more = turns.take(&[Client::User(UserId::new()), network(1)]).now_or_never();
            assert!(more.is_none(), "a second user at the same network waits");
        }
        let other = turns.take(&[network(2)]).now_or_never();
        assert!(other.is_some_and(|turn| turn.is_ok()), "another network does not");
        drop(held);
        assert!(turns.take(&[network(1)]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_comes_later_waits_for_one_of_the_crowd_at_most() {
        let turns = Arc::new(ListTurns::new(1));
        let held = turns.take(&[network(1)]).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut asking = Vec::new();
        for client in [network(1); 30].into_iter().chain([network(2)]) {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            asking.push(tokio::spawn(async move {
                let _turn = turns.take(&[client]).await.unwrap();
                order.lock().unwrap().push(client);
                tokio::task::yield_now().await;
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        futures::future::join_all(asking).await;
        let order = order.lock().unwrap();
        let at = order.iter().position(|client| *client == network(2)).unwrap();
        assert!(order.len() == 31 && at <= 1, "{at}");
    }

    #[tokio::test]
    async fn clients_that_have_gone_are_forgotten() {
        let turns = ListTurns::new(1);
        for _ in 0..200 {
            drop(turns.take(&[Client::User(UserId::new())]).await.unwrap());
        }
        assert!(turns.own.lock().unwrap().len() <= FEW);
    }
}
