//! Fleets by whose they are: whoever asks the same again needs no look at what tells versions apart, which is all of a
//! function's files.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use capabilities::functions::{Function, FunctionName};
use kernel::EnvId;

use crate::fleet::Fleet;
use crate::host::Called;

/// The fleet of each function that was asked last, with how often something had changed until then that its processes are
/// given.
#[derive(Default)]
pub(crate) struct Known(Mutex<Fleets>);

type Fleets = HashMap<EnvId, HashMap<FunctionName, Noted>>;

/// What was asked, and the fleet that it has. What is noted weakly keeps its place in memory, which is no other's until then.
struct Noted {
    changes: u64,
    function: Weak<Function>,
    variables: Weak<BTreeMap<String, String>>,
    fleet: Weak<Fleet>,
}

impl Known {
    /// The fleet of exactly this, where it is the one that was noted last.
    pub fn find(&self, called: &Called, changes: u64) -> Option<Arc<Fleet>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = all.get(&called.env.id())?.get(&called.name)?;
        let is_same = noted.changes == changes
            && noted.function.as_ptr() == Arc::as_ptr(&called.function)
            && noted.variables.as_ptr() == Arc::as_ptr(&called.variables);
        noted.fleet.upgrade().filter(|_| is_same)
    }

    /// Notes the fleet of this.
    pub fn note(&self, called: &Called, changes: u64, fleet: &Arc<Fleet>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_env = all.entry(called.env.id()).or_default();
        of_env.retain(|_, noted| noted.fleet.strong_count() > 0);
        let (function, variables) = (Arc::downgrade(&called.function), Arc::downgrade(&called.variables));
        let noted = Noted { changes, function, variables, fleet: Arc::downgrade(fleet) };
        of_env.insert(called.name.clone(), noted);
    }

    /// Forgets one function: from here on whoever asks it looks among all fleets.
    pub fn forget_one(&self, env: EnvId, name: &FunctionName) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_env) = all.get_mut(&env) {
            of_env.remove(name);
        }
    }

    /// Forgets an environment.
    pub fn forget(&self, env: EnvId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&env);
    }
}
