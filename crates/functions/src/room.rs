//! How many processes there may be: of all environments, and of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::EnvId;

/// Places of processes that are taken.
#[derive(Debug, Default)]
pub(crate) struct Rooms(Mutex<HashMap<EnvId, Taken>>);

/// What an environment has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub processes: usize,
    /// What all of them may use, in bytes.
    pub memory_bytes: u64,
}

/// What may be taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    pub of_all: usize,
    pub of_env: Taken,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The environment has as many as it may.
    Env(EnvId),
    /// All environments together have; that one has most of them.
    All(EnvId),
}

/// A place for one process, as long as this lives.
#[derive(Debug)]
pub(crate) struct Room {
    rooms: Arc<Rooms>,
    env: EnvId,
    memory_bytes: u64,
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<EnvId, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places that are taken, of all environments.
    pub fn taken(&self) -> usize {
        self.lock().values().map(|it| it.processes).sum()
    }

    /// Takes a place for a process that may use so much.
    pub fn take(self: &Arc<Self>, env: EnvId, memory_bytes: u64, most: Most) -> Result<Room, Full> {
        let mut all = self.lock();
        let own = all.get(&env).copied().unwrap_or_default();
        let fits = own.memory_bytes.saturating_add(memory_bytes) <= most.of_env.memory_bytes;
        if own.processes >= most.of_env.processes || !fits {
            return Err(Full::Env(env));
        }
        if all.values().map(|it| it.processes).sum::<usize>() >= most.of_all {
            let largest = all.iter().max_by_key(|(_, it)| it.processes).map_or(env, |(env, _)| *env);
            return Err(Full::All(largest));
        }
        let taken = all.entry(env).or_default();
        taken.processes += 1;
        taken.memory_bytes += memory_bytes;
        Ok(Room { rooms: Arc::clone(self), env, memory_bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut all = self.rooms.lock();
        let Some(taken) = all.get_mut(&self.env) else { return };
        taken.processes = taken.processes.saturating_sub(1);
        taken.memory_bytes = taken.memory_bytes.saturating_sub(self.memory_bytes);
        if taken.processes == 0 {
            all.remove(&self.env);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_environment_takes_more_than_it_may_and_who_has_most_is_known() {
        let most = Most { of_all: 4, of_env: Taken { processes: 3, memory_bytes: 300 } };
        let (rooms, [one, other]) = (Arc::new(Rooms::default()), [EnvId::new(), EnvId::new()]);
        let mut held: Vec<Room> = (0..2).map(|_| rooms.take(one, 100, most).unwrap()).collect();
        assert_eq!(rooms.take(one, 101, most).unwrap_err(), Full::Env(one), "for its memory");
        held.push(rooms.take(one, 100, most).unwrap());
        assert_eq!(rooms.take(one, 0, most).unwrap_err(), Full::Env(one), "for its number");
        let last = rooms.take(other, 300, most).unwrap();
        assert_eq!(rooms.take(other, 0, most).unwrap_err(), Full::All(one));
        held.pop();
        assert!(rooms.take(other, 0, most).is_ok());
        drop((held, last));
        assert!(rooms.lock().is_empty());
    }
}
